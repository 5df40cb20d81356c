"""The terminal, and texts from outside that must not steer it."""
