"""Samplers of our own; Optuna's are named by their yaml directly."""
