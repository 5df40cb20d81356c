"""Calibration: what it learns about the dense model, which are moments, gradients and divergence."""
