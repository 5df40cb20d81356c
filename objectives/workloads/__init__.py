"""Workloads, which say how a model is run when it is timed: generation, encoding, translation."""
