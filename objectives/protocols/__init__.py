"""What each part of a candidate, and whatever runs or measures it, must be able to do. Free of torch at run time."""
