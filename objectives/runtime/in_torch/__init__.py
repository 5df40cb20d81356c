"""Runtimes that run the packed model itself, in torch."""
