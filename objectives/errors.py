"""The errors of the objective side.

ObjectiveError
├── ModelError     a checkpoint is missing, incomplete, foreign or unsafe
├── TaskError      a task returned no score, or its own code failed
├── DataError      a file of a task's rows is missing, empty or wrong
├── AssetError     a fetched model or data set is missing or damaged (objectives.assets)
├── NotFinite      a score or a measurement is NaN or infinite: the trial fails with that reason
├── ProcessLost    an engine or a server of ours ended, which may be chance: the trial crashed
├── RequestFailed  a server failed one request of a load: the trial fails
├── TooSlow        one request of a load took too long: the trial ran out of time
└── Unsupported    this candidate cannot be built or run here: the trial fails with that reason
    └── NoKernel   ... because of a layer's shape: that layer stays in 16 bits
MemoryError
└── DoesNotFit     this candidate needs more memory than there is, by prediction
"""

from __future__ import annotations


class ObjectiveError(Exception):
    """The base of all errors here; the message is one clear line for a person."""


class ModelError(ObjectiveError):
    """The model cannot be loaded as asked; the message names the file or folder and what was expected."""


class NotFinite(ObjectiveError):
    """A score or a measurement is NaN or infinite; the message names it."""


class ProcessLost(ObjectiveError):
    """The process of an engine or a server ended, or was not ready in time; the message tells how, and its last words.

    It may have been chance, such as memory that somebody else took.
    """


class RequestFailed(ObjectiveError):
    """A server refused a request of a load, or answered otherwise than it was asked; the message tells how."""


class TooSlow(ObjectiveError):
    """A request of a load was not answered in time; the message tells in how much."""


class TaskError(ObjectiveError):
    """A task returned no score or no rows, or its own code raised; names the class and what was expected."""


class DataError(ObjectiveError):
    """A file of rows cannot be used; the message names the setting, the file and the line, and what was expected."""


class Unsupported(ObjectiveError):
    """No kernel, family or device supports what the candidate asks for."""


class NoKernel(Unsupported):
    """The device's kernel for these bits does not take this shape."""


class DoesNotFit(MemoryError):
    """The candidate needs ``needed`` bytes and there is ``room`` for less, by prediction before anything was tried."""

    def __init__(self, needed: int, room: int) -> None:
        super().__init__(f"out of memory by prediction: {needed / 2**20:,.0f} MiB needed, {room / 2**20:,.0f} MiB free")
        self.needed, self.excess = needed, needed / max(room, 1) - 1


def described(error: BaseException) -> str:
    """Return the class of an exception and its message, in one line: ``KeyError: 'x'``."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'nothing'}"


def said(error: BaseException) -> str:
    """Return the first line of an exception's message, with the next one after a colon; without a message its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
