"""From records to the answer: which trials are feasible, which are on the front, which one is recommended."""
