"""Trackers: where a study can be browsed. The study store is the truth; a tracker is its mirror."""
