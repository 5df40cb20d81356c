"""Formats numbers for people: MiB, ms, percent and tokens/s. Everything else in the project is in base units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectives.metrics import METRICS
from objectives.types import ENCODERS

if TYPE_CHECKING:
    from objectives.types import Head

Row = Mapping[str, Any]

HEADINGS = {
    "throughput": "Throughput",
    "latency.p50": "Latency p50",
    "ttft": "TTFT",
    "tpot": "TPOT",
    "peak_memory": "Peak memory",
    "weight_bytes": "Weights",
    "accuracy": "Accuracy",
    "perplexity": "Perplexity",
    "speedup": "Speed",
    "memory_ratio": "Memory",
    "compression_speedup": "Compression",
}
_STEPS = {
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
}
DECIMALS = {"accuracy": 4, "accuracy_stderr": 4, "speedup": 2, "memory_ratio": 2, "compression_speedup": 2}


@dataclass(frozen=True)
class UnitPrefix:
    """A unit with its prefix: a value in base units divided by ``size`` is in ``unit``."""

    size: float
    unit: str

    def text(self, value: float) -> str:
        """Format a value in base units with this unit."""
        gap = "" if self.unit in ("", "×") else " "
        return f"{number(value / self.size)}{gap}{self.unit}"


def number(value: float, digits: int = 3) -> str:
    """Format a number with three significant digits and thousands separated; an exponent only below 0.0001."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - size)}f}"


def rate_of(head: Head) -> str:
    """Return the unit of throughput: encoders read samples, all other models write tokens."""
    return "samples/s" if head in ENCODERS else "tokens/s"


def percent(fraction: float) -> str:
    """Format a fraction in percent with four digits: ``0.2`` -> ``20 %``, ``0.9995`` -> ``99.95 %``."""
    return f"{100 * fraction:.4g} %"


def ratio(value: float) -> str:
    """Format a ratio, never rounded to 0: ``2.1`` -> ``2.10×``, ``12.34`` -> ``12.3×``, ``0.00421`` -> ``0.00421×``."""
    if value >= 9.995:
        return f"{value:,.1f}×"
    return f"{value:.2f}×" if value >= 0.0995 or value == 0 else f"{number(value)}×"


def score(value: float) -> str:
    """Format an accuracy in [0, 1] with four decimals."""
    return f"{value:.4f}"


def prefix_of(name: str, largest: float, rate: str) -> UnitPrefix:
    """Return the unit in which the values of a metric read well when the largest is ``largest``."""
    unit = METRICS[name].unit
    if unit in _STEPS:
        fitting = (step for step in _STEPS[unit] if largest >= step[0] * (4 if step[1] == "GiB" else 1))
        return UnitPrefix(*next(fitting, _STEPS[unit][-1]))
    if name in ("pruning_ratio", "sparsity"):
        return UnitPrefix(0.01, "%")
    if name in ("speedup", "memory_ratio", "compression_speedup"):
        return UnitPrefix(1.0, "×")
    return UnitPrefix(1.0, rate if unit == "1/s" else unit)


def show(name: str, value: float, rate: str) -> str:
    """Format a single value of a metric with its unit: ``612 MiB``."""
    return score(value) if DECIMALS.get(name) == 4 else prefix_of(name, abs(value), rate).text(value)


KV_BITS = "kv_bits"
"""The column of the bits of keys and values."""


def heading(name: str) -> str:
    """Return a metric's name for people."""
    plain = name.replace("_", " ").replace(".", " ")
    return HEADINGS.get(name, plain[:1].upper() + plain[1:])


def label(row: Row, searched: Sequence[str] = ()) -> str:
    """Describe a candidate in a few words: ``20 % · 8 bit · b8``."""
    return " · ".join(_settings(row, searched, "{}", "b{}", "kv{:g}"))


def in_words(row: Row, searched: Sequence[str] = ()) -> str:
    """Describe a candidate within a sentence: ``20 % pruned, 8 bit, batch 8``."""
    words = _settings(row, searched, "{} pruned", "batch {}", "keys and values in {:g} bit")
    return ", ".join("unpruned" if word == f"{percent(0)} pruned" else word for word in words)


def _settings(row: Row, searched: Sequence[str], pruned: str, batch: str, kept: str) -> list[str]:
    share = row.get("nominal_pruning_ratio") or row.get("pruning_ratio")  # a kind's own ratio leaves the first at 0
    values = [
        (pruned, None if share is None else percent(share)),
        ("{:g} bit", row.get("bits")),
        (batch, row.get("batch_size")),
        *((kept if key == KV_BITS else "{}", row.get(key)) for key in searched),
    ]
    return [pattern.format(v) for pattern, v in values if v is not None] or [f"trial {row['trial']}"]
