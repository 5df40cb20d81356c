"""The record of a trial: its settings and its results. The study store is the truth, a record is its readable form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from objectives.types import Facts, Note

Value = int | float | str | bool | None
State = Literal["complete", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    ``params``: values of the searched variables by dotted path (``pruning.ratio``). ``metrics``: by name of
    ``objectives.metrics.METRICS``, in base units; a failed trial has those that are known anyway. ``reason``,
    ``message``: why it failed; ``severity``: by what share it exceeded a limit (1 where nobody knows).
    ``cached_from``: number of the trial whose measurement answered this repeat of its cell. ``seconds``: wall time of
    the trial; ``started``: ISO 8601, UTC. ``facts``: the typed results of its stages. ``confirmed``: its speed was
    measured again, against the rest of the front.
    """

    number: int
    uid: str
    params: Mapping[str, Value]
    state: State
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    notes: tuple[Note, ...] = ()
    cached_from: int | None = None
    is_baseline: bool = False
    seconds: float = 0.0
    started: str = ""
    facts: Facts = field(default_factory=Facts)
    confirmed: bool = False
    severity: float = 1.0
