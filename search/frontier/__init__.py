"""The search of our own: what is known of a grid of cells, what the rest may be worth, and when nothing is left."""
