"""What is asked of the search, a line each: asked, measured, whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any

Row = Mapping[str, Any]
State = Mapping[str, Any]
Line = tuple[str, str, bool]

CHEAP: Mapping[str, float] = {"minilm": 0.08, "smollm2": 0.12}
"""Shares of the exhaustive cost, by grid."""
GOAL = 0.999
HARD = "three objectives, losses predicted, a tenth out of memory"
"""A state of a study that makes a look long."""


def lines_of(state: State) -> Iterator[Line]:
    """Asked, measured, whether it holds."""
    for name, floors in state.get("replay", {}).items():
        for floor, rows in floors.items():
            yield from _replay_lines(name, floor, rows)
    if "races" in state:
        yield from _race_lines(state["races"])
    if "adversarial" in state:
        yield from _adversarial_lines(state["adversarial"]["rows"])
    if "memory" in state:
        yield from _memory_lines(state["memory"])
    if "overhead" in state:
        yield from _overhead_lines(state["overhead"])


def _replay_lines(name: str, floor: str, rows: Mapping[str, Sequence[Row]]) -> Iterator[Line]:
    own, label = rows["ours"], f"{name}, floor {floor}"
    volume, cost = mean(row["volume"] for row in own), mean(row["cost"] for row in own)
    asked = f"{label}: hypervolume >= {GOAL} of the exhaustive front at <= {CHEAP[name]:.0%} of the exhaustive cost"
    worst = min(row["volume"] for row in own)
    measured = f"{volume:.4f} at {cost:.1%}, worst of {len(own)} seeds {worst:.4f}"
    yield asked, measured, cost <= CHEAP[name] and volume >= GOAL
    lacks = [row["lacks"] for row in own]
    told = f"{sum(lack <= 0.02 for lack in lacks)} of {len(own)} seeds, worst {max(lacks):.1%}"
    yield f"{label}: every point of the true front within 2 %", told, max(lacks) <= 0.02
    infeasible = sum(row["infeasible"] for row in own)
    yield f"{label}: no infeasible member", str(infeasible), infeasible == 0
    stopped = {row["stopped"] for row in own}
    yield f"{label}: stops by itself", ", ".join(sorted(stopped)), stopped == {"complete"}
    rest = {sampler: median_until(found) for sampler, found in rows.items() if sampler != "ours"}
    if rest:
        best = min(rest, key=lambda sampler: rest[sampler])
        asked = f"{label}: at most half the cost of Optuna's best of {len(rest)} with the cache ({best}) until {GOAL}"
        yield asked, f"{median_until(own):.1%} of {rest[best]:.1%}", median_until(own) <= rest[best] / 2


def median_until(rows: Sequence[Row]) -> float:
    """Of the cost until the hypervolume is there; infinite where most seeds never get there."""
    found = [row["until"][str(GOAL)] for row in rows]
    return float(median(float("inf") if one is None else one for one in found))


def _race_lines(found: Mapping[str, Mapping[str, float]]) -> Iterator[Line]:
    own = found["made-up, error of a study"]
    asked = f"races: at most 40 % of 2000 examples, {own['verdicts']:.0f} made-up verdicts"
    yield asked, f"{own['share']:.0%}", own["share"] <= 0.4
    for name in CHEAP:
        recorded = [each["share"] for label, each in found.items() if label.startswith(name)]
        if recorded:
            told = ", ".join(f"{share:.0%}" for share in recorded)
            yield f"races: at most 40 % of the examples of {name}, by floor", told, max(recorded) <= 0.4
    wrong = sum(each["wrong"] * each["verdicts"] for each in found.values())
    count = sum(each["verdicts"] for each in found.values())
    yield "races: at most 2 % wrong verdicts", f"{wrong:.0f} of {count:.0f}", wrong <= 0.02 * count


def _adversarial_lines(rows: Sequence[Row]) -> Iterator[Line]:
    label = f"adversarial, {len(rows)} seeds"
    volume = mean(row["volume"] for row in rows)
    yield f"{label}: hypervolume >= .995", f"{volume:.4f}, worst {min(r['volume'] for r in rows):.4f}", volume >= 0.995
    infeasible = sum(row["infeasible"] for row in rows)
    yield f"{label}: no infeasible member", str(infeasible), infeasible == 0
    called = [row for row in rows if row["stopped"] == "complete"]
    wrong = sum(row["lacks"] > 0.02 for row in called)  # what the certificate promises: within its resolution
    yield f"{label}: called complete and wrong in at most 5 %", f"{wrong} of {len(called)}", wrong <= 0.05 * len(rows)


def _memory_lines(found: Mapping[str, Mapping[str, Sequence[Row]]]) -> Iterator[Line]:
    for told, kinds in found.items():
        own, theirs = kinds["ours"], kinds["tpe, told as failed"]
        failed, front = ([mean(row[key] for row in rows) for rows in (own, theirs)] for key in ("failed", "front"))
        label = f"out of memory, {told}, {len(own)} seeds"
        asked = f"{label}: fewer failures than TPE that is told so"
        yield asked, f"{failed[0]:.1f} of {failed[1]:.1f}", failed[0] < failed[1]
        yield f"{label}: a front at least as large", f"{front[0]:.1f} of {front[1]:.1f} points", front[0] >= front[1]


def _overhead_lines(found: State) -> Iterator[Line]:
    looks = [(*each, "") for each in found["looks"]] + [(*each, f", {HARD}") for each in found["hard"]]
    for cells, measured, seconds, more in looks:
        limit = 0.05 if cells <= 400 else 0.5
        asked = f"sampler: at most {1000 * limit:.0f} ms a trial at {cells:,} cells, {measured:,} measured{more}"
        yield asked, f"{1000 * seconds:.0f} ms", seconds <= limit
    early, late = found["early"], found["late"]
    asked = f"{found['trials']:,} trials slow asking and telling by at most 2x"
    yield asked, f"{1000 * early:.0f} -> {1000 * late:.0f} ms", late <= 2 * early
