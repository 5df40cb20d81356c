"""A candidate as a folder that can be served, and loaded again as it was measured."""
