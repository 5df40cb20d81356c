"""Turns records into the answer: which trials are feasible, which are on the front, which one is recommended."""
