"""Packed linears: they really store their weights in 16, 8 or 4 bits, and run on the fastest kernel at hand."""
