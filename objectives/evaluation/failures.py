"""Tells the exceptions that are results: errors that say why a candidate has no measurement."""

from __future__ import annotations

import torch

from objectives.errors import DoesNotFit, NotFinite, ProcessLost, RequestFailed, TaskError, TooSlow, Unsupported, said
from objectives.types import Failure, Reason


def failure_of(error: BaseException) -> Failure | None:
    """Return the failure that ``error`` means for the candidate that met it; None for an unexpected error."""
    if isinstance(error, Unsupported):
        return Failure(Reason.UNSUPPORTED, str(error))
    if isinstance(error, NotFinite):
        return Failure(Reason.NOT_FINITE, str(error))
    if isinstance(error, (TaskError, RequestFailed)):
        return Failure(Reason.ERROR, str(error))
    if isinstance(error, ProcessLost):
        return Failure(Reason.CRASHED, str(error))
    if isinstance(error, TooSlow):
        return Failure(Reason.TIMEOUT, str(error))
    if isinstance(error, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        text = "a matrix of this recipe has no inverse: more calibration rows, damping or ridge would give it one"
        return Failure(Reason.UNSUPPORTED, f"{text} ({said(error)})")
    if isinstance(error, DoesNotFit):
        known = {"predicted_peak": float(error.needed)}
        return Failure(Reason.OUT_OF_MEMORY, str(error), error.excess, known)
    if isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
        lines = str(error).strip().splitlines()  # Python's own MemoryError says nothing
        return Failure(Reason.OUT_OF_MEMORY, lines[0] if lines else "out of memory")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out.

    CPU allocation failures are plain RuntimeErrors, CUDA's a subclass of these: both are told by their text.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
