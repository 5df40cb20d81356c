"""Where a model runs: which kernels store it, how to wait for them, how to see their peak memory."""
