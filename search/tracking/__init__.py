"""Trackers: places where a study can be browsed. The study store holds the results; a tracker mirrors them."""
