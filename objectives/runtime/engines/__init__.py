"""What the engines with files of their own share."""
