"""Executors: where a trial runs. One executor, one file."""
