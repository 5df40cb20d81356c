"""Width against depth pruning where both are as fast: at equal ratios depth is the faster of the two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from promises import Line, Results
from recipes import DEPTHS

Point = tuple[float, dict[str, float]]
"""A speed-up, and the gap to dense by domain."""


def at_equal_speed(found: Results, speed: Results) -> dict[str, dict[str, float]]:
    """For the speed-up of every depth, depth's gaps and those of width where it is as fast; nan: never as fast."""
    rows = {}
    for column in ("prefill 1x256", "decode"):
        width = [(1.0, {"news": 0.0, "encyclopedia": 0.0}), *_points("prune", (*DEPTHS, 0.5), found, speed, column)]
        for ratio, (faster, depth) in zip(DEPTHS, _points("depth", DEPTHS, found, speed, column)):
            row = {"speed-up": faster}
            for domain, gap in depth.items():
                own = _at(faster, [(point, gaps[domain]) for point, gaps in width])
                row |= {f"{domain}: depth": gap, f"{domain}: width": own, f"{domain}: share": own / gap}
            rows[f"depth {ratio}, {column}"] = row
    return rows


def equal_speed_lines(found: Results, speed: Results) -> Iterator[Line]:
    """Whether width's gap is half of depth's at most, at every speed-up of depth."""
    rows = at_equal_speed(found, speed)
    for column in ("prefill 1x256", "decode"):
        for domain in ("news", "encyclopedia"):
            shares = [row[f"{domain}: share"] for name, row in rows.items() if name.endswith(column)]
            asked = f"{domain}: as fast as depth 10, 20, 30, 40 % at {column}, gap <= half of depth's"
            text = " ".join("-" if math.isnan(share) else f"{share:.2f}" for share in shares)
            yield asked, text, all(share <= 0.5 for share in shares)


def _points(kind: str, ratios: Sequence[float], found: Results, speed: Results, column: str) -> Iterator[Point]:
    for name in (f"{kind} {ratio}" for ratio in ratios):
        if name in found and column in speed.get(name, {}):
            yield (
                speed[name][column],
                {domain: found[name][domain] - found["dense"][domain] for domain in ("news", "encyclopedia")},
            )


def _at(speed: float, points: Sequence[tuple[float, float]]) -> float:
    """The gap at ``speed``, linear between the slowest ratio that is as fast and the one before it."""
    for (slower, less), (faster, more) in pairwise(points):
        if slower < speed <= faster:
            return less + (more - less) * (speed - slower) / (faster - slower)
    return math.nan
