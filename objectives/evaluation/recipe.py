"""Keys of a candidate: its recipe, which decides about bytes and accuracy, and the parts that make its model."""

from __future__ import annotations

from objectives.protocols.candidate import Candidate, KeyValues, Pruner, Quantizer, Recovery, Runtime

Recipe = tuple[Pruner, Recovery, Quantizer, Runtime, KeyValues]
"""The parts of a candidate that decide about bytes and accuracy."""
CompressionKey = tuple[Pruner, Recovery, Quantizer]
"""The parts of a candidate that make its compressed model; the quantiser is the one that its runtime stores."""


def recipe_of(candidate: Candidate) -> Recipe:
    """Return all parts of ``candidate`` but its workload."""
    return candidate.pruning, candidate.recovery, candidate.quantization, candidate.runtime, candidate.kv


def compression_key(candidate: Candidate) -> CompressionKey:
    """Return the parts that make the model that the candidate's runtime runs."""
    return candidate.pruning, candidate.recovery, candidate.runtime.storage(candidate.quantization)
