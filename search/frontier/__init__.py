"""The search of our own: observations of a grid of cells, forecasts of the other cells, and a certificate."""
