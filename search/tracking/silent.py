"""A tracker that tracks nothing: the study store and the report are all there is."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import override

from search.records.trial import TrialRecord
from search.tracking.protocol import Mirror, StudyEnd, StudyHeader, Tracker


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Silent(Tracker):
    """Tracks nothing; it has no settings."""

    @override
    def open(self, header: StudyHeader) -> SilentMirror:
        return SilentMirror()


class SilentMirror(Mirror):
    """Mirrors nothing."""

    @override
    def log(self, record: TrialRecord) -> None:
        pass

    @override
    def close(self, result: StudyEnd) -> str:
        return ""
