"""Engines that run a compressed model: one file and one yaml each."""
