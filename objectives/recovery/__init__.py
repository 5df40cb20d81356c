"""What is done between pruning and rounding to win back accuracy: one method per file."""
