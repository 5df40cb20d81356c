"""Measuring: how fast, how large. Raw samples are kept; the device is synchronised before every stamp."""
