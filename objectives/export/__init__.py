"""Writes a candidate to a folder that can be served, and loads it again as it was measured."""
