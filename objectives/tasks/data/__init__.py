"""Rows of a user's files: read, checked, and divided into those that calibrate and those that are scored."""
