"""Merges scores of some examples into the score of all. The module is free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any, Protocol, TypeVar

import numpy as np

from objectives.errors import Unsupported
from objectives.tasks.progress import steps
from objectives.types import Score

T = TypeVar("T")


class Reader(Protocol):
    """Turns texts into token ids, as a model and its runner do."""

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer of transformers."""

    @property
    def vocabulary(self) -> int:
        """Return the number of token ids."""


def merged(parts: Sequence[Score]) -> Score:
    """Return the score of all examples of ``parts``, in their order. Raises ValueError without any.

    The parts are of one domain, and the accuracy is that of the mean example, without replicates. ``extra`` holds
    geometric means over examples, since perplexities multiply, and the ratios of ``sums``. One example that is not
    finite makes the accuracy NaN. A metric of all examples together comes in a single part, which is the score.
    """
    if not parts:
        raise ValueError("no examples were scored")
    if len(parts) == 1 and parts[0].replicates:
        return parts[0]
    examples = tuple(chain.from_iterable(part.examples for part in parts))
    mean, error = math.nan, math.nan
    if all(map(math.isfinite, examples)):
        mean, error = float(np.mean(examples)), standard_error(examples)
    if parts[0].link == "exp_minus_mean":
        mean = math.exp(max(-mean, -700.0))
        error *= mean
    ids = tuple(chain.from_iterable(part.ids for part in parts))
    sums = {name: _summed([part.sums[name] for part in parts]) for name in parts[0].sums}
    extra = {**_extra(parts), **{name: above / (below or 1.0) for name, (above, below) in sums.items()}}
    return replace(
        parts[0], accuracy=mean, stderr=error, examples=examples, ids=ids, extra=extra, replicates=(), sums=sums
    )


def _summed(ratios: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the sum of the numerators and that of the denominators."""
    above, below = zip(*ratios)
    return math.fsum(above), math.fsum(below)


def _extra(parts: Sequence[Score]) -> dict[str, float]:
    weights = [len(part.examples) for part in parts]
    names = [name for name in parts[0].extra if name not in parts[0].sums]
    return {name: geometric_mean([part.extra[name] for part in parts], weights) for name in names}


def geometric_mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Average as perplexities are; arithmetically where a value is not positive; NaN where one is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    if min(values) <= 0:
        return float(np.average(values, weights=weights))
    return math.exp(float(np.average(np.log(values), weights=weights)))


def require_rows(model: Reader, highest: int) -> None:
    """Raise Unsupported where ``highest``, the largest token id of a text, has no row in the embedding."""
    if highest >= model.vocabulary:
        token = model.tokenizer.convert_ids_to_tokens(highest)
        raise Unsupported(
            f"task: a text holds the token {token!r} (id {highest}), the model embeds {model.vocabulary} tokens; "
            "give the tokenizer that was saved with this model"
        )


def batches(order: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Return ``order`` in pieces of ``size``; the last one may be shorter. Each that is done is told."""
    return steps((order[start : start + size] for start in range(0, len(order), size)), len(order))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of independent values; 0 for a single one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return ``names`` in their order, repeated ones numbered from 2 (``a``, ``a#2``).

    A name does not depend on those that follow it.
    """
    taken: dict[str, None] = {}
    for name in names:
        copies = (f"{name}#{number}" for number in count(2))
        taken[next(free for free in chain([name], copies) if free not in taken)] = None
    return tuple(taken)
