"""How a model is run when it is timed: generation, encoding, translation."""
