"""No tracking: the study store and the report are all there is."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from search.records.trial import TrialRecord
from search.tracking.protocol import StudyEnd, StudyHeader


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Silent:
    """No settings."""

    def open(self, header: StudyHeader) -> SilentMirror:
        """See ``search.tracking.protocol.Tracker``."""
        return SilentMirror()


class SilentMirror:
    """Mirrors nothing."""

    def log(self, record: TrialRecord) -> None:
        """See ``search.tracking.protocol.Mirror``."""

    def close(self, result: StudyEnd) -> str:
        """See ``search.tracking.protocol.Mirror``."""
        return ""
