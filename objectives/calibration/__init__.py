"""Calibration: learns moments, gradients and divergence from the dense model and the calibration rows."""
