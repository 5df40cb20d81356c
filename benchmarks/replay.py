"""A recorded grid as an executor: studies run as they are, over what was measured once, on a clock that adds up.

What a trial costs is what its stages took when they were recorded, as far as they are not known yet; what a sampler
takes to ask is its own, and real.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from objectives.evaluation.dominance import DominanceCheck
from objectives.evaluation.floor_verdict import contest, decide, estimated, gains
from objectives.measuring.estimate import estimate
from objectives.measuring.interleaved import falls_behind, next_look
from objectives.metrics import is_dominated
from objectives.protocols.candidate import Candidate
from objectives.tasks.provenance import Source
from objectives.types import Decision, Facts, Failure, Gate, Measurement, Outcome, Reason, Score, Verdict
from search.front.pareto import Floats, hypervolume, non_dominated
from search.space.space import Axis

Key = tuple[float, float]


def needs_of(ratio: float, bits: float) -> frozenset[str]:
    """What a model needs statistics for."""
    return frozenset(["pruning"] * (ratio > 0) + ["quantization"] * (bits < 16))


@dataclass(frozen=True)
class Grid:
    """A recorded grid, see :mod:`grids`; ``epsilon``: the floor, a share of the baseline's accuracy."""

    recorded: Mapping[str, Any]
    epsilon: float

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        neutral = {"quantization.bits": 16.0}
        found = self.recorded["axes"]
        return tuple(Axis(path, tuple(values), neutral.get(path, values[0])) for path, values in found.items())

    @cached_property
    def recipes(self) -> dict[Key, Mapping[str, Any]]:
        return {(each["ratio"], each["bits"]): each for each in self.recorded["recipes"]}

    @cached_property
    def cells(self) -> dict[tuple[float, float, int], Mapping[str, Any]]:
        return {(each["ratio"], each["bits"], each["batch"]): each for each in self.recorded["cells"]}

    @cached_property
    def baseline(self) -> Score:
        return self.score((0.0, 16.0))

    def score(self, key: Key) -> Score:
        examples = tuple(self.recipes[key]["examples"])
        return Score(float(np.mean(examples)), 0.01, examples, ids=tuple(self.recorded["ids"]))

    @property
    def floor(self) -> float:
        return self.epsilon * self.baseline.accuracy

    @property
    def exhaustive_seconds(self) -> float:
        """Of measuring every cell by itself: load, statistics, compress, score, time; or load, and fail."""
        return sum(
            self.recorded["load_seconds"] + (self._alone(cell) if "metrics" in cell else cell["seconds"])
            for cell in self.recorded["cells"]
        )

    def _alone(self, cell: Mapping[str, Any]) -> float:
        own = self.recipes[cell["ratio"], cell["bits"]]
        made = self.statistics_seconds(needs_of(cell["ratio"], cell["bits"])) + own["compress_seconds"]
        return float(made + own["score_seconds"] + cell["time_seconds"])

    @property
    def factorised_seconds(self) -> float:
        """Of measuring every cell, each model made and scored once."""
        models = sum(own["compress_seconds"] + own["score_seconds"] for own in self.recipes.values())
        timed = sum(cell.get("time_seconds", 0.0) for cell in self.recorded["cells"])
        all_needed = self.statistics_seconds(frozenset({"pruning", "quantization"}))
        return float(self.recorded["load_seconds"] + all_needed + models + timed)

    def statistics_seconds(self, needs: frozenset[str]) -> float:
        """Of a process that makes models that need statistics for those."""
        kind = "both" if len(needs) == 2 else next(iter(needs), None)
        return 0.0 if kind is None else float(self.recorded["calibrate_seconds"][kind])

    # ---- the truth

    @cached_property
    def points(self) -> dict[tuple[float, float, int], tuple[float, float]]:
        """Objectives of all measured cells that keep the floor, log units, minimised."""
        kept = {key for key in self.recipes if self.score(key).accuracy >= self.floor}
        return {
            key: (-float(np.log(cell["metrics"]["speedup"])), float(np.log(cell["metrics"]["peak_memory"])))
            for key, cell in self.cells.items()
            if key[:2] in kept and "metrics" in cell
        }

    @cached_property
    def front(self) -> Floats:
        """[members, objectives]"""
        points = np.array(list(self.points.values()))
        return points[non_dominated(points)]

    @property
    def members_seconds(self) -> float:
        """Of measuring the members of the front and nothing else, each model made and scored once, in full."""
        points = list(self.points)
        own = [points[index] for index in np.flatnonzero(non_dominated(np.array(list(self.points.values()))))]
        recipes = [self.recipes[key] for key in {member[:2] for member in own}]
        needs = frozenset[str]().union(*(needs_of(*member[:2]) for member in own))
        models = sum(each["compress_seconds"] + each["score_seconds"] for each in recipes)
        timed = sum(self.cells[member]["time_seconds"] for member in own)
        return float(self.recorded["load_seconds"] + self.statistics_seconds(needs) + models + timed)

    def members(self, keys: Sequence[tuple[float, float, int]]) -> int:
        """How many of those cells are feasible and not dominated by another of them, repeats once."""
        mine = np.array([self.points[key] for key in dict.fromkeys(keys) if key in self.points]).reshape(-1, 2)
        return int(non_dominated(mine).sum()) if len(mine) else 0

    def share(self, keys: Sequence[tuple[float, float, int]]) -> tuple[float, float, int]:
        """Hypervolume of those cells over that of the true front; the factor, less one, within which they cover it; how
        many of them do not keep the floor.
        """
        mine = np.array([self.points[key] for key in keys if key in self.points]).reshape(-1, 2)
        corner = np.array(list(self.points.values())).max(axis=0) + 0.1
        if not len(mine):
            return 0.0, np.inf, len(keys)
        lacks = (mine[None, :, :] - self.front[:, None, :]).max(axis=2).min(axis=1).max()
        volume = hypervolume(mine, corner) / hypervolume(self.front, corner)
        return volume, float(np.expm1(max(0.0, lacks))), sum(key not in self.points for key in keys)


@dataclass
class Replay:
    """An executor and its runner. ``seed``: the order of examples. ``spent``: seconds on the clock. ``goal``: a
    hypervolume at which the study is interrupted, for samplers that do not know when they are there.
    """

    grid: Grid
    seed: int = 0
    goal: float = math.inf
    spent: float = 0.0
    shares: dict[Key, float] = field(default_factory=dict)
    wrong: int = 0
    timed: int = 0
    trail: list[tuple[float, tuple[float, float, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seen: dict[Key, int] = {}
        self._made: set[Key] = set()
        self._needs: frozenset[str] = frozenset()
        self._order = list(range(len(self.grid.baseline.examples)))
        random.Random(self.seed).shuffle(self._order)
        self._left = time.perf_counter()
        self.asking = 0.0

    def start(self, _problem: object) -> Replay:
        return self

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.spent += time.perf_counter() - self._left  # the last look, which found nothing left

    def prepare(self) -> Future[Mapping[str, str]]:
        self.spent += self.grid.recorded["load_seconds"]
        return _done({"device": "replay"})

    def sources(self) -> Future[list[Source]]:
        """Return none: a recorded grid reads no files."""
        return _done([])

    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        now = time.perf_counter()
        if self.trail and self.grid.share([key for _, key in self.trail])[0] >= self.goal:
            raise KeyboardInterrupt
        self.asking += now - self._left
        self.spent += now - self._left  # whoever asks pays for thinking
        found = self._outcome(candidate, gate)
        self._left = time.perf_counter()
        return _done(found)

    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        found = []
        known = {(each["ratio"], each["bits"]): each for each in self.grid.recorded.get("losses", ())}
        for key in map(_key, candidates):
            found.append(known[key]["loss"] if key in known else float("nan"))
            if key in known:
                self._calibrate(key)
                self.spent += min(known[key]["seconds"], 0.1)  # the rest is what statistics took
        return _done(found)

    def _calibrate(self, key: Key) -> None:
        """Pay for statistics that no model needed before."""
        before = self.grid.statistics_seconds(self._needs)
        self._needs |= needs_of(*key)
        self.spent += max(0.0, self.grid.statistics_seconds(self._needs) - before)

    def _outcome(self, candidate: Candidate, gate: Gate | None) -> Outcome:
        """Stage by stage as :mod:`objectives.evaluation.evaluator` goes."""
        key = _key(candidate)
        own, cell = self.grid.recipes[key], self.grid.cells[(*key, candidate.workload.batch_size)]
        if "metrics" not in cell:
            self.spent += cell["seconds"]
            known = {name: cell[name] for name in ("predicted_peak",) if name in cell}
            return Failure(Reason(cell["reason"]), cell["message"], cell.get("severity", 1.0), known)
        self._calibrate(key)
        spent = {"compress_seconds": 0.0 if key in self._made else own["compress_seconds"], "score_seconds": 0.0}
        self._made.add(key)
        metrics, facts, examples, ids = {"weight_bytes": cell["metrics"]["weight_bytes"]}, Facts(), {}, ()
        ran, seconds = timing_of(cell, gate)
        timed = gate is None or gate.timed_first
        if timed and gate is not None and any(is_dominated(ran, other) for other in gate.incumbents):
            facts = Facts(verdict=Verdict(Decision.UNSCORED))
        else:
            score, spent["score_seconds"] = self._scored(key, gate)
            facts = Facts(verdict=self._verdict(key, score, gate))
            score = estimated(score, self.grid.baseline)
            examples, ids = {"accuracy": score.examples}, score.ids
            metrics |= {"accuracy": score.accuracy, "accuracy_stderr": score.stderr}
            metrics |= {"examples": float(len(score.examples))}
            timed = timed or gate is None or not facts.is_missed or not gate.skip_timing_if_missed
        if timed:
            metrics = {**ran, **metrics, "timing_seconds": seconds}
            spent["run_seconds"] = seconds
            self.timed += 1
        if not timed:
            facts = replace(facts, timing_skipped=True)
        self.spent += sum(spent.values())
        if timed and "accuracy" in metrics:
            self.trail.append((self.spent, (*key, candidate.workload.batch_size)))
        return Measurement(metrics | spent, examples, (), facts, ids)

    def _verdict(self, key: Key, score: Score, gate: Gate | None) -> Verdict | None:
        if gate is None:
            return None
        judged = decide(score, self.grid.baseline, self.grid.floor, gate.error)
        self.wrong += (judged.decision == "reached") != (self.grid.score(key).accuracy >= self.grid.floor)
        return judged.verdict

    def _scored(self, key: Key, gate: Gate | None) -> tuple[Score, float]:
        whole, base = self.grid.score(key), self.grid.baseline
        total, before = len(whole.examples), self._seen.get(key, 0)
        race = None if gate is None or key == (0.0, 16.0) else contest(base, self.grid.floor, gate.error)
        seen = total
        if race is not None:
            seen = before
            race.see(gains(self._part(whole, before), base))
            while race.decision == "open" and seen < total:
                race.see(gains(self._part(whole, seen + 32, seen), base))
                seen = min(seen + 32, total)
        self._seen[key] = max(seen, before)
        self.shares[key] = self._seen[key] / total
        seconds = self.grid.recipes[key]["score_seconds"] * (self._seen[key] - before) / total
        return (whole if self._seen[key] == total else self._part(whole, self._seen[key])), seconds

    def _part(self, whole: Score, stop: int, start: int = 0) -> Score:
        chosen = self._order[start:stop]
        examples = tuple(whole.examples[index] for index in chosen)
        return Score(0.0, 0.01, examples, ids=tuple(whole.ids[index] for index in chosen), total=len(whole.examples))


def timing_of(cell: Mapping[str, Any], gate: Gate | None) -> tuple[dict[str, float], float]:
    """What timing a cell gives, and the seconds it takes: fewer where it is found to be behind before the end.

    Rounds come in their recorded order; all are taken to have lasted as long.
    """
    ran = {name: value for name, value in cell["metrics"].items() if name != "accuracy"}
    shapes = SimpleNamespace(peak=ran["peak_memory"])
    stop_below = DominanceCheck(gate, {"weight_bytes": ran["weight_bytes"]}).stop_below(shapes)  # type: ignore[arg-type]
    whole, ratios = cell["time_seconds"], cell.get("ratios", ())
    if ratios:
        ran["speedup.error"] = estimate(ratios).error
    if stop_below is None or not ratios:
        return ran, whole
    each, rounds = ran["timing_seconds"] / len(ratios), 3
    while rounds < len(ratios):
        if falls_behind(ratios[:rounds], rounds * each, stop_below):
            now = float(np.median(ratios[:rounds]))
            ran["throughput"] *= now / ran["speedup"]
            ran |= {"speedup": now, "speedup.error": estimate(ratios[:rounds]).error}
            return ran, whole - each * (len(ratios) - rounds)
        rounds = next_look(rounds)
    return ran, whole


def _key(candidate: Candidate) -> Key:
    return candidate.pruning.ratio, float(candidate.quantization.bits)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
