"""What tells candidates apart: the recipe, which decides about bytes and accuracy, and what makes the model."""

from __future__ import annotations

from objectives.protocols.candidate import Candidate, Pruner, Quantizer, Recovery, Runtime

Recipe = tuple[Pruner, Recovery, Quantizer, Runtime]
"""What decides about bytes and accuracy."""
CompressionKey = tuple[Pruner, Recovery, Quantizer]
"""What makes a compressed model."""


def recipe_of(candidate: Candidate) -> Recipe:
    """All of ``candidate`` but its workload."""
    return candidate.pruning, candidate.recovery, candidate.quantization, candidate.runtime


def compression_key(candidate: Candidate) -> CompressionKey:
    """What makes the model that its runtime runs."""
    return candidate.pruning, candidate.recovery, candidate.runtime.storage(candidate.quantization)
