"""Quantisation: block weights are really stored in fewer bits. One method, one file."""
