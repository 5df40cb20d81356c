"""Protocols of tasks: data with a score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


@runtime_checkable
class Task(Protocol):
    """Data with a score."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """Return the kind of model that it scores."""

    @abstractmethod
    def calibration(self, model: LoadedModel) -> Domains:
        """Return batches by domain, which evaluation never sees: token ids (int64, [rows, tokens], no padding).

        A :class:`objectives.models.batch.Batch` also says what is to be written, and which answers the task reads.
        """

    @abstractmethod
    def evaluate(self, model: Runner) -> Score:
        """Score ``model``; the examples and their order are the same at every call."""


@runtime_checkable
class PartiallyScorable(Task, Protocol):
    """A task that can score some of its examples, each by itself."""

    @abstractmethod
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        """Yield the scores of a few examples at a time, in the order of ``order``, which numbers them as ``evaluate``.

        The caller may stop early. All parts together, in any order, are what ``evaluate`` returns. With a setting by
        which the accuracy is no mean of examples, there is one part of all that ``order`` asks for, with replicates:
        a score that has them is never raced.
        """
