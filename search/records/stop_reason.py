"""The reason why a study stopped."""

from __future__ import annotations

from enum import StrEnum


class StopReason(StrEnum):
    """The reason why a study stopped, as it is stored with the study."""

    COMPLETE = "complete"
    """Every cell is measured, or nothing that is left is worth a trial."""
    BUDGET = "budget"
    TIME = "time"
    HYPERVOLUME_STALLED = "hypervolume_stalled"
    INTERRUPTED = "interrupted"
    UNKNOWN = "stored"
    """No run has ended that said why: the study is still running, or it was killed. The text is that of old reports."""
