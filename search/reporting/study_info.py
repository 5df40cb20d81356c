"""The facts that a report shows about a study besides its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search.frontier.certificate import Certificate
from search.records.stop_reason import StopReason
from search.records.trial import Value
from search.reporting.headline import Headline

MEAN = "mean"
"""The name of the floor of several tasks' weighted mean, which no task may have."""


@dataclass(frozen=True)
class AskedFloor:
    """A floor as an accuracy, and the number by which it was asked for."""

    floor: float
    epsilon: float


@dataclass(frozen=True)
class StudyInfo:
    """The facts that a report shows about a study besides its trials.

    ``floor``: absolute accuracy floor; ``epsilon`` and ``relative``: how it was asked for. ``baseline``: its trial
    number. ``n_trials``: trials asked for. ``space``: values searched, by dotted path; ``fixed``: values not searched.
    ``settings``: the whole config, for the details. ``hardware``: name -> text. ``search_cost``: what the search took
    and was spared, such as ``{"cells timed": "12 of 18"}``. ``dropped``: trials that left the front when it was
    confirmed, and why; ``unconfirmed``: why the front was not confirmed, empty where it was. ``rate``: the unit of
    throughput, ``tokens/s`` or ``samples/s``. ``certificate``: how sure the front is, if known. ``advice``: what to do
    where nothing reaches the floor. ``gains``: those of the recommended candidate, by compression, runtime and batch
    size. ``floors``: of several tasks, those that are asked for, by task, with that of their mean as ``MEAN``.
    ``limits``: on metrics, by name.
    """

    name: str
    title: str
    objectives: tuple[str, ...]
    floor: float
    epsilon: float
    relative: bool
    baseline: int | None
    model: str
    task: str
    device: str
    stop_reason: StopReason
    n_trials: int
    space: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    fixed: Mapping[str, Value] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    hardware: Mapping[str, str] = field(default_factory=dict)
    search_cost: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[int, str] = field(default_factory=dict)
    unconfirmed: str = ""
    rate: str = "tokens/s"
    certificate: Certificate | None = None
    advice: tuple[str, ...] = ()
    gains: Headline | None = None
    floors: Mapping[str, AskedFloor] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
