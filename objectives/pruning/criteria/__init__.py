"""What a set of channels is worth. One criterion, one file."""
