"""Tasks: data with a score in [0, 1], higher is better. Each task has one file."""
