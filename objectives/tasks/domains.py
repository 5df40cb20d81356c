"""Several domains at once: each calibrates with equal weight, is scored, and is reported.

Compression fitted to one domain costs twice as much in another, so a model is calibrated and judged on all domains
that it will serve. The accuracy is the mean over the served domains. The ``unseen`` domains take no part in it nor in
calibration; they show what the model lost elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, InstanceOf
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import ModelError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Banded, Bounded, Remarking, Supplied
from objectives.protocols.task import Task
from objectives.tasks.joint import joint_calibration, joint_excerpts, joint_scores, remarks_of, require_all
from objectives.tasks.overlap import Excerpts, Exposed
from objectives.tasks.partial_scores import geometric_mean, unique
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains as Batches
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Domains(Task, Bounded, Banded, Supplied, Remarking, Exposed):
    """A task over several domains.

    ``served``, ``unseen``: tasks by the name of their domain, all for the same kind of model.
    """

    served: Annotated[Mapping[str, InstanceOf[Task]], Field(min_length=1)]
    unseen: Mapping[str, InstanceOf[Task]] = Field(default_factory=dict)

    @property
    @override
    def head(self) -> Head:
        """Return the head of the tasks. Raises ModelError where they differ."""
        heads = {name: task.head for name, task in self._all()}
        if len(set(heads.values())) > 1:
            raise ModelError(f"task: its domains drive different kinds of model: {heads}")
        return next(iter(heads.values()))

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        """Return the spans of every task that tells its own."""
        return tuple(
            replace(span, settings=tuple(f"{key}.{name}.{setting}" for setting in span.settings))
            for key, tasks in (("served", self.served), ("unseen", self.unseen))
            for name, task in tasks.items()
            if isinstance(task, Bounded)
            for span in task.spans
        )

    @property
    @override
    def bands(self) -> Mapping[str, tuple[float, float]]:
        """Return the bands of every served task that has some, by the names of its metrics here."""
        return {
            f"{metric}.{name}": band
            for name, task in self.served.items()
            if isinstance(task, Banded)
            for metric, band in task.bands.items()
        }

    @override
    def require_documents(self) -> None:
        """Raise ObjectiveError where a task that can tell has too few documents; it names the domain's settings."""
        for place, tasks in self._places():
            require_all(tasks, place)

    @override
    def remarks(self) -> tuple[str, ...]:
        return tuple(line for place, tasks in self._places() for line in remarks_of(tasks, place))

    def _all(self) -> Iterable[tuple[str, Task]]:
        return {**self.served, **self.unseen}.items()

    def _places(self) -> Sequence[tuple[str, Mapping[str, Task]]]:
        return (("task.served", self.served), ("task.unseen", self.unseen))

    @override
    def calibration(self, model: LoadedModel) -> Batches:
        """Return the calibration rows of every served domain."""
        return joint_calibration(self.served, "task.served", model)

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        """Return the rows of all domains: a row that calibrates in one may not be scored in any other."""
        served = joint_excerpts(self.served, "task.served", model)
        unseen = joint_excerpts(self.unseen, "task.unseen", model)
        return Excerpts(
            served.calibration,
            [*served.scored, *unseen.scored],
            [*served.left_out, *unseen.left_out],
            [*served.remarks, *unseen.remarks],
        )

    @override
    def evaluate(self, model: Runner) -> Score:
        """Return the score over the served domains; ``extra`` holds ``accuracy.<domain>`` and all that domains report.

        Raises ModelError where the examples of the served domains do not fit into one score.
        """
        served, unseen = joint_scores(self._places(), model)
        accuracy = sum(score.accuracy for score in served.values()) / len(served)
        stderr = math.sqrt(sum(score.stderr**2 for score in served.values())) / len(served)
        extra = _mean_extra(served)
        for name, score in {**served, **unseen}.items():
            extra[f"accuracy.{name}"] = score.accuracy
            extra |= {f"{key}.{name}": value for key, value in score.extra.items()}
        examples = tuple(hit for score in served.values() for hit in score.examples)
        mean = Score(accuracy, stderr, examples, extra, _ids(served), _strata(served), _link(served))
        return replace(mean, chance=_chance(served), replicates=_replicates(served))


def _ids(scores: Mapping[str, Score]) -> tuple[str, ...]:
    """Return ``<domain>:<id>`` of all examples; those of a task that names none are numbered."""
    return unique(
        f"{domain}:{name}"
        for domain, score in scores.items()
        for name in (score.ids or map(str, range(len(score.examples))))
    )


def _strata(scores: Mapping[str, Score]) -> tuple[int, ...]:
    """Return how many examples each domain has; a served task that has domains itself gives one number for each.

    Raises ModelError where the innermost domains would then not weigh the same, as they do in :class:`Score`.
    """
    inner = {name: score.strata or (len(score.examples),) for name, score in scores.items()}
    numbers = {name: len(strata) for name, strata in inner.items()}
    if len(set(numbers.values())) > 1:
        raise ModelError(f"task.served: its domains hold unlike numbers of domains, so weights would differ: {numbers}")
    return tuple(examples for strata in inner.values() for examples in strata)


def _link(scores: Mapping[str, Score]) -> Literal["mean", "exp_minus_mean"]:
    """Return how examples become an accuracy. Raises ModelError where the domains differ in it."""
    links = {name: score.link for name, score in scores.items()}
    if len(set(links.values())) > 1:
        raise ModelError(f"task.served: its domains turn examples into an accuracy in different ways: {links}")
    return next(iter(links.values()))


def _mean_extra(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return the geometric means of the metrics that all domains report, since perplexities multiply."""
    shared = set.intersection(*(set(score.extra) for score in scores.values()))
    return {key: geometric_mean([score.extra[key] for score in scores.values()]) for key in sorted(shared)}


def _replicates(scores: Mapping[str, Score]) -> tuple[float, ...]:
    """Return the replicates of the mean over domains; none where a domain has none, or another number of them."""
    several = [score.replicates for score in scores.values()]
    if len({len(replicates) for replicates in several}) > 1:
        return ()
    return tuple(math.fsum(each) / len(several) for each in zip(*several))


def _chance(scores: Mapping[str, Score]) -> float | None:
    """Return what guessing reaches on the mean over domains; None where one of them does not say."""
    known = [score.chance for score in scores.values() if score.chance is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None
