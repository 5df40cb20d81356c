"""The search space: a tree that mirrors the candidate, and its cells as arrays."""
