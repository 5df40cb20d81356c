"""The running study: ask, evaluate, tell, until nothing is left that is worth a trial."""
