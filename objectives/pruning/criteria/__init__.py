"""Criteria: each says what removing a set of channels costs. One criterion, one file."""
