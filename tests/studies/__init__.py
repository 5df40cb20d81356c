"""Small studies of every kind of task and every preset, each with other code that scores the same rows."""
