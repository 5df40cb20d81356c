"""How many examples verdicts take, and how many of them are wrong: races over recorded and made-up scores."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from replay import Grid

from objectives.evaluation.floor_verdict import contest, gains
from objectives.types import Score

BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """``share`` of the examples; ``reached``: the truth; ``wrong``: whether the race said otherwise."""

    share: float
    reached: bool
    wrong: bool


def verdicts(grid: Grid, error: float, seed: int) -> Iterator[Verdict]:
    """Of every recipe but the baseline; ``error``: of one study, spread over its recipes."""
    order = list(range(len(grid.baseline.examples)))
    random.Random(seed).shuffle(order)
    for key in grid.recipes:
        if key != (0.0, 16.0):
            yield _verdict(grid, grid.score(key), order, error / len(grid.recipes))


def _verdict(grid: Grid, score: Score, order: Sequence[int], error: float) -> Verdict:
    race = contest(grid.baseline, grid.floor, error)
    assert race is not None
    by_id, base = dict(zip(score.ids, score.examples)), grid.baseline
    seen = 0
    while race.decision == "open" and seen < len(order):
        names = tuple(base.ids[index] for index in order[seen : seen + BATCH])
        race.see(gains(Score(0.0, 0.0, tuple(map(by_id.__getitem__, names)), ids=names), base))
        seen = min(seen + BATCH, len(order))
    reached = score.accuracy >= grid.floor
    return Verdict(seen / len(order), reached, (race.decision == "reached") != reached)


def summary(found: Sequence[Verdict]) -> dict[str, float]:
    """Mean share of the examples, of all and by truth; share of wrong verdicts."""

    def share(kind: bool) -> float:
        shares = [one.share for one in found if one.reached == kind]
        return mean(shares) if shares else float("nan")

    return {
        "verdicts": float(len(found)), "share": mean(one.share for one in found), "feasible": share(True),
        "infeasible": share(False), "wrong": mean(one.wrong for one in found),
    }  # fmt: skip
