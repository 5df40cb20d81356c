"""Turns a candidate into its measurement: compress, weigh, score, time."""
