"""What the study tells a tracker.

Life: the yaml's object is :class:`Tracker`; ``open`` gives a :class:`Mirror` of one study, told every trial by ``log``
and the result by ``close``. A resumed study replays its trials: a mirror keeps one entry per trial uid. A mirror
that fails must not stop the study: it warns once and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.records.trial import TrialRecord


@dataclass(frozen=True)
class StudyHeader:
    """What identifies a study: its uid in the store, its name, project and configuration."""

    uid: str
    name: str
    project: str
    home: Path
    resolved: Mapping[str, Any]


@dataclass(frozen=True)
class StudyEnd:
    """What a study came to: its trials, ``summary`` metrics and ``tags`` of the whole, and the report's ``files``."""

    records: Sequence[TrialRecord]
    summary: Mapping[str, float]
    tags: Mapping[str, str]
    files: Sequence[Path]


class Mirror(Protocol):
    """One study in a tracker."""

    def log(self, record: TrialRecord) -> None:
        """Mirror one finished trial."""

    def close(self, result: StudyEnd) -> str:
        """Mirror what is missing, the study's summary metrics and its report; returns a line for the user."""


class Tracker(Protocol):
    """Settings of a place where studies can be browsed."""

    def open(self, header: StudyHeader) -> Mirror:
        """Find or create the study's entry."""
