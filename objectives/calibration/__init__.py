"""What calibration learns about the dense model: moments, gradients, divergence."""
