"""Pruning: structure is really removed, so that dense kernels get less work. One method, one file."""
