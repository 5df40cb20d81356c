"""The exceptions of the searcher; every one carries a message for a person and an exit code.

ParetuneError
├── ConfigError      2   a key, type, range or name is wrong
├── StudyConflict    2   the study of that name was made with another definition, or is running
├── LeaseLost        1   another driver took the study over
├── StoreFailed      1   the store is full, damaged or away
├── BaselineFailed   1   the unpruned 16-bit model itself could not be measured
├── Unmeasured       1   measuring again, or predicting losses, failed; the study goes on
├── NothingFeasible  3   no trial meets the accuracy floor
└── Interrupted    130   stopped by a signal (143 on SIGTERM, 129 on SIGHUP)
    └── DevicesLost  1   all devices of a cluster left
"""

from __future__ import annotations


class ParetuneError(Exception):
    """Base of all errors shown to a user as one line."""

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message, exit_code)
        self.message = message
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class ConfigError(ParetuneError):
    """A setting is wrong: the message names the key, the allowed values and what came."""

    exit_code = 2


class StudyConflict(ParetuneError):
    """The store holds a study of this name that cannot be continued with this definition."""

    exit_code = 2


class LeaseLost(ParetuneError):
    """Another driver took the study over while this one did not answer; it must write nothing more."""


class StoreFailed(ParetuneError):
    """The store takes or gives nothing any more; the message says the way out."""


class BaselineFailed(ParetuneError):
    """The baseline could not be measured, so that there is no floor and no speed-up."""


class Unmeasured(ParetuneError):
    """Measuring again or predicting failed: the worker was killed, ran out of time or memory, or met a bug."""


class NothingFeasible(ParetuneError):
    """No trial of the study meets the accuracy floor, or none fits what was asked for."""

    exit_code = 3


class Interrupted(ParetuneError):
    """A signal stopped the study; what was measured is stored and reported."""

    exit_code = 130


class DevicesLost(Interrupted):
    """All devices of the executor left; what was measured is stored and reported."""

    exit_code = 1
