"""Pruning: structure is removed for real, so dense kernels get less work. One method, one file."""
