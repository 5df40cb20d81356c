"""The part of a study that stays fixed. Free of torch at import, so that the driver can build and check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from objectives.cache import Cache
from objectives.measuring.interleaved import Interleaved
from objectives.protocols.candidate import Candidate, Model
from objectives.protocols.running import Device
from objectives.protocols.task import Task

KEPT_BYTES = 1 << 30
"""Weights of compressed models that stay in memory beside the one in use."""


@dataclass(frozen=True)
class Problem:
    """Model, task, device, how to time, the baseline that every candidate is compared with, and what keeps results."""

    model: Model
    task: Task
    device: Device
    timing: Interleaved
    baseline: Candidate
    cache: Cache | None = None


@dataclass(frozen=True)
class ScoreSample:
    """The first scores of a task: some ``examples`` by name.

    ``accuracy``, ``extra``, ``stderr``: of them, of all where ``whole``. ``replicates``: of a metric of all examples
    together, 0 where it has none; None where it is their mean.
    """

    task: str
    examples: Mapping[str, float]
    accuracy: float
    extra: Mapping[str, float]
    whole: bool
    stderr: float = 0.0
    replicates: int | None = None


@dataclass(frozen=True)
class CheckReport:
    """The result of a look at a problem (:mod:`objectives.evaluation.checkup`); seconds, bytes, fractions.

    ``positions``: the most tokens that the model reads; ``padding``: its pad token; ``block_parameters``: weights of
    the block linears, which are pruned and quantised, ``undescribed``: why they are not. ``calibration``: rows and
    tokens by domain. ``scores``: of every task, whose names are empty where there is one. ``peak_memory``: weights
    and one run of the baseline's workload. ``left_out``: rows that are not scored, and why.
    """

    model_type: str
    parameters: int
    vocabulary: int
    positions: int | None
    padding: str | None
    blocks: int
    block_parameters: int
    calibration: Mapping[str, tuple[int, int]]
    scores: tuple[ScoreSample, ...]
    run_seconds: float
    peak_memory: int
    load_seconds: float
    score_seconds: float
    undescribed: str = ""
    left_out: str = ""
