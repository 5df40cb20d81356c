"""The boundary that every score passes: only finite numbers, and only accuracies in [0, 1], get through.

A model with one NaN weight answers NaN everywhere, and a comparison of NaNs still gives an answer. So the numbers of
every score are checked here, once, whatever task made it. The failure names what is wrong and, where it can be seen,
the weight that caused it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

from objectives.errors import NotFinite, Unsupported
from objectives.protocols.running import Runner, RunsInTorch
from objectives.types import Score

_SLACK = 1e-9
"""The distance by which rounding may take an accuracy out of [0, 1]."""


def number(value: Any) -> float | None:
    """Return ``value`` as a float, also a scalar of numpy or torch; None for a bool and for what is no real number."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Real):
        return float(value)
    item = getattr(value, "item", None)  # a tensor or an array of one element
    if item is None or getattr(value, "ndim", 1) != 0:
        return None
    inner: Any = item()
    return None if type(inner) is bool or not isinstance(inner, Real) else float(inner)


def checked(score: Any, runner: Runner) -> Score:
    """Return ``score`` with plain floats.

    Raises NotFinite naming what is not finite, and Unsupported for what is no score and for replicates that are none.
    """
    if not isinstance(score, Score):
        raise Unsupported(f"task: evaluate must return a Score, got {type(score).__name__}")
    named = {"accuracy": score.accuracy, "standard error": score.stderr, **score.extra}
    values = {name: _float(name, value) for name, value in named.items()}
    examples = tuple(_float("example", value) for value in score.examples)
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    lost = sum(not math.isfinite(value) for value in examples)
    if lost and "accuracy" not in wrong:
        wrong.append(f"{lost} of {len(examples)} examples")
    if wrong:
        raise NotFinite(f"{', '.join(wrong)} not finite{cause(runner)}")
    accuracy = values["accuracy"]
    if not -_SLACK <= accuracy <= 1 + _SLACK:
        hint = "; is it in percent?" if 1 < accuracy <= 100 else ""
        raise Unsupported(f"task: an accuracy lies in [0, 1], got {accuracy:g}{hint}")
    return replace(
        score,
        accuracy=min(max(accuracy, 0.0), 1.0),
        stderr=values["standard error"],
        examples=examples,
        extra={name: values[name] for name in score.extra},
        replicates=_replicates(score),
    )


def _replicates(score: Score) -> tuple[float, ...]:
    """Return the replicates as plain floats; those that a resample leaves undefined are no fault of the model."""
    values = [_float("replicate", value) for value in score.replicates]
    lost = sum(not math.isfinite(value) for value in values)
    if lost:
        raise Unsupported(
            f"task: {lost} of {len(values)} replicates not finite: give the metric a value, such as 0, where a "
            "resample lacks what it divides by"
        )
    wrong = next((value for value in values if not -_SLACK <= value <= 1 + _SLACK), None)
    if wrong is not None:
        hint = "; are they in percent?" if 1 < wrong <= 100 else ""
        raise Unsupported(f"task: replicates of an accuracy lie in [0, 1], got {wrong:g}{hint}")
    return tuple(min(max(value, 0.0), 1.0) for value in values)


def _float(name: str, value: Any) -> float:
    plain = number(value)
    if plain is None:
        raise Unsupported(f"task: a score's {name} must be a number, got {value!r}")
    return plain


def cause(runner: Runner) -> str:
    """Return a text with the first weight that is not finite; empty where all are, or where an engine holds them."""
    if not isinstance(runner, RunsInTorch):
        return ""
    for name, tensor in runner.module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f": the model's {name} holds NaN or infinity"
    return ""


def not_finite(metrics: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics that are no finite numbers."""
    values = {name: number(value) for name, value in metrics.items()}
    return [name for name, value in values.items() if value is None or not math.isfinite(value)]
