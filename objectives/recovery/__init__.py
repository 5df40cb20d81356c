"""Recovery: the step between pruning and rounding that wins back accuracy. One method per file."""
