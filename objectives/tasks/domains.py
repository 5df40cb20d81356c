"""Several domains at once: each calibrates with equal weight, each is scored, and each is reported.

Compression fitted to one domain costs twice as much in another, so a model is calibrated and judged on all that it
will serve. The accuracy is the mean over the served domains; those ``unseen`` take no part in it nor in calibration
and show what the model lost elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, InstanceOf
from pydantic.dataclasses import dataclass as settings

from objectives.errors import ModelError
from objectives.types import Head, Score, Task

if TYPE_CHECKING:
    from objectives.calibration import Domains as Batches
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Domains:
    """``served``, ``unseen``: tasks by the name of their domain, all for the same kind of model."""

    served: Annotated[Mapping[str, InstanceOf[Task]], Field(min_length=1)]
    unseen: Mapping[str, InstanceOf[Task]] = Field(default_factory=dict)

    @property
    def head(self) -> Head:
        """That of the tasks; raises ModelError when they differ."""
        heads = {name: task.head for name, task in {**self.served, **self.unseen}.items()}
        if len(set(heads.values())) > 1:
            raise ModelError(f"task: its domains drive different kinds of model: {heads}")
        return next(iter(heads.values()))

    def calibration(self, model: LoadedModel) -> Batches:
        """See ``objectives.types.Task``: rows of every served domain."""
        return {
            name: [batch for batches in task.calibration(model).values() for batch in batches]
            for name, task in self.served.items()
        }

    def evaluate(self, model: LoadedModel) -> Score:
        """See ``objectives.types.Task``; ``extra`` holds ``accuracy.<domain>`` and what else a domain reports."""
        served = {name: task.evaluate(model) for name, task in self.served.items()}
        unseen = {name: task.evaluate(model) for name, task in self.unseen.items()}
        accuracy = sum(score.accuracy for score in served.values()) / len(served)
        stderr = math.sqrt(sum(score.stderr**2 for score in served.values())) / len(served)
        extra = _mean_extra(served)
        for name, score in {**served, **unseen}.items():
            extra[f"accuracy.{name}"] = score.accuracy
            extra |= {f"{key}.{name}": value for key, value in score.extra.items()}
        return Score(accuracy, stderr, tuple(hit for score in served.values() for hit in score.examples), extra)


def _mean_extra(scores: Mapping[str, Score]) -> dict[str, float]:
    """What all domains report, as geometric means: perplexities multiply."""
    shared = set.intersection(*(set(score.extra) for score in scores.values()))
    return {
        key: math.exp(sum(math.log(score.extra[key]) for score in scores.values()) / len(scores))
        for key in sorted(shared)
    }
