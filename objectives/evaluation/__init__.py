"""From a candidate to its measurement: compress, weigh, score, time."""
