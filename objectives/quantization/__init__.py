"""Quantisation: block weights stored in fewer bits for real. One method, one file."""
