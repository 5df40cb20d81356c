"""The protocol between a study and a tracker.

The yaml's object is a :class:`Tracker`. Its ``open`` returns a :class:`Mirror` of one study, which gets every trial by
``log`` and the result by ``close``. A resumed study sends its trials again, so a mirror keeps one entry per trial uid.
Whatever fails is raised: a study calls its mirror through :mod:`search.tracking.outbox`, for which it costs a warning.
All calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord


@dataclass(frozen=True)
class StudyHeader:
    """The identity of a study: its uid in the store, its name, project and configuration."""

    uid: str
    name: str
    project: str
    home: Path
    resolved: Mapping[str, Any]


@dataclass(frozen=True)
class StudyEnd:
    """The result of a study: its trials, and why it stopped.

    ``summary``: metrics of the whole; ``tags``: texts for a reader; ``files``: those of the report.
    """

    records: Sequence[TrialRecord]
    stop_reason: StopReason
    summary: Mapping[str, float]
    tags: Mapping[str, str]
    files: Sequence[Path]


class Mirror(Protocol):
    """The entry of one study in a tracker."""

    def log(self, record: TrialRecord) -> None:
        """Mirror one finished trial."""

    def close(self, result: StudyEnd) -> str:
        """Mirror missing trials, the study's summary metrics and its report; return a line for the user."""


class Tracker(Protocol):
    """The settings of a place where studies can be browsed."""

    def open(self, header: StudyHeader) -> Mirror:
        """Find or create the study's entry."""
