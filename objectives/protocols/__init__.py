"""Protocols: the members that each part of a candidate, and whatever runs or measures it, must have. Free of torch."""
