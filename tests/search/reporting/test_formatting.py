"""Candidates in a few words."""

from __future__ import annotations

from search.reporting.formatting import in_words, label

ROW = {"trial": 3, "nominal_pruning_ratio": 0.2, "bits": 8, "batch_size": 4, "kv_bits": 8.0, "runtime": "torch"}


def test_bits_of_keys_and_values_say_what_they_are_of() -> None:
    searched = ("kv_bits", "runtime")
    assert in_words(ROW, searched) == "20 % pruned, 8 bit, batch 4, keys and values in 8 bit, torch"
    assert label(ROW, searched) == "20 % · 8 bit · b4 · kv8 · torch"
