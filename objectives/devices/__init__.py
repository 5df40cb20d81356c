"""Devices that models run on: which kernels store a model, how to wait for them, how to see their peak memory."""
