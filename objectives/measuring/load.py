"""Computes what users of a loaded server see, from the answers of its bursts.

The definitions are those of ``vllm bench serve``; percentiles are over the requests of all bursts that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from objectives.protocols.serving import LoadTiming, Slo
from objectives.types import Note, NoteCode

TAILS = (90, 95, 99)
KEEPS_UP = 0.9
"""The share of the requests that come per second which a server answers per second if it keeps up with them."""


def load_metrics(timing: LoadTiming, slo: Slo) -> dict[str, float]:
    """Return metrics of :data:`objectives.metrics.METRICS`; those that do not apply are absent.

    ``throughput`` is of the median burst, as its ratio to the baseline's is; the other rates are over all bursts.
    """
    answers, seconds = timing.answers, float(sum(timing.latency))
    spread = {
        "latency": [answer.last for answer in answers],
        "ttft": [answer.first for answer in answers],
        "tpot": [tpot for answer in answers if (tpot := answer.tpot) is not None],
        "itl": list(chain.from_iterable(answer.gaps for answer in answers)),
    }
    metrics = {f"{name}{end}": value for name, values in spread.items() for end, value in _spread(values).items()}
    for name in ("ttft", "tpot", "itl"):  # the plain names are medians, as of other workloads
        if f"{name}.p50" in metrics:
            metrics[name] = metrics.pop(f"{name}.p50")
    metrics["latency.stdev"] = float(np.std(spread["latency"]))
    metrics["throughput"] = timing.items / float(np.median(timing.latency))
    metrics["request_throughput"] = len(answers) / seconds
    metrics["prompt_throughput"] = sum(answer.read for answer in answers) / seconds
    if slo:
        metrics["goodput"] = sum(map(slo.is_kept, answers)) / seconds
    return metrics


def overload(timing: LoadTiming) -> list[Note]:
    """Return a note where requests come faster than they are answered: their delays then grow with the burst."""
    answered = len(timing.answers) / float(sum(timing.latency))
    if timing.rate is None or answered >= KEEPS_UP * timing.rate:
        return []
    text = f"overloaded: {timing.rate:g} requests per second came, {answered:.2f} were answered; delays grow on"
    return [Note(NoteCode.OTHER, text)]


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    tails = {f".p{q}": float(np.percentile(values, q)) for q in (50, *TAILS)}
    return {".mean": float(np.mean(values)), **tails}


def samples_of(timing: LoadTiming) -> dict[str, tuple[float, ...]]:
    """Return the raw times of all requests, in seconds, in the order in which they were sent."""
    answers = timing.answers
    return {
        "request_latency": tuple(answer.last for answer in answers),
        "request_ttft": tuple(answer.first for answer in answers),
        "request_tpot": tuple(answer.tpot or 0.0 for answer in answers),
    }
