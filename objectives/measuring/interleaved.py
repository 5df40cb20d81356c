"""Times several runs in turns, in one process.

Whatever disturbs the machine disturbs neighbours alike, so the ratio of two neighbouring runs is far steadier than the
ratio of two separate blocks (coefficient of variation 1-3 % against 8-25 % on a busy two-core machine). The order is
reversed from round to round, so that a machine that slows down steadily favours nobody. Rounds go on until the 95 %
interval of every median ratio is narrow enough, or the budget is spent.

A round in which our threads waited for a processor, or the machine was slower than it can be (:mod:`.pace`), is put
aside and repeated. When hardly any other round comes, the machine is busy for good: then all rounds count, and the
result is marked as contended. A machine's state may change within a second, so no timing stops for precision before
its rounds took ``min_seconds``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from objectives.measuring.estimate import FEWEST, Estimate, estimate
from objectives.measuring.load import load_metrics
from objectives.measuring.pace import MachineSpeed
from objectives.measuring.strain import Contention, read_strain
from objectives.protocols.running import Workload
from objectives.protocols.serving import Loading, LoadTiming
from objectives.settings import FORBID, Count, Natural, NonNegative, Positive, Share
from objectives.types import Stop, Timing

Run = Callable[[], Timing]

_LOOKS = 1.15
"""Factor by which the rounds grow before the interval is looked at again: every look is a chance to stop too early."""
_SHORTEST, _MOST_REPEATS = 0.01, 32
_TICK = 1e-9
"""Seconds: shorter times are not told apart."""
_FEWEST_BEHIND, _SHORTEST_BEHIND = 3, 0.5
"""Least rounds, and least seconds of them, after which a run may be found too slow to be on the front."""
_STATES = 0.03
"""Relative amount by which a ratio may differ in the next minute, when the machine is in another state."""
_OVERTIME = 3.0
"""Multiple of the budget after which timing ends even with fewer than the least number of rounds."""


@dataclass(frozen=True)
class Round:
    """One turn of every run, and what else went on meanwhile. ``level``: seconds of the pace's probe."""

    timings: tuple[Timing, ...]
    strain: Contention
    level: float = 1.0

    @property
    def seconds(self) -> float:
        """Return the total seconds of all runs in this round."""
        return sum(sum(timing.latency) for timing in self.timings)


@dataclass(frozen=True)
class Sampled:
    """The result of timing several runs in turns.

    ``timings``: of every run, over the rounds that count; ``ratios``: by run, its throughput over the first one's, one
    ratio per round (1 for the first itself). ``estimates``: by run, of these ratios; for the first, of its latency.
    ``conditions``: some of :data:`objectives.metrics.CONDITIONS`; ``contended``: strained rounds had to be counted.
    """

    timings: tuple[Timing, ...]
    ratios: tuple[tuple[float, ...], ...]
    estimates: tuple[Estimate, ...]
    stopped: Stop
    conditions: Mapping[str, float]
    contended: bool


@settings(frozen=True, kw_only=True, config=FORBID)
class Interleaved:
    """Settings of timing in turns: ``warmups`` rounds are discarded, then ``min_rounds`` to ``max_rounds`` are timed.

    Timing ends after ``max_seconds``. It ends earlier once half of each ratio's interval is below ``precision``
    (relative), but not before six rounds and ``min_seconds``. ``clock``: ``wall``, or ``cpu``: CPU time, which other
    work disturbs less, for one thread. A round is repeated if its threads waited for more than ``strain`` of their time
    (by the wall clock), or if the machine was slower by ``slowdown`` than at its best of the last minutes. After
    ``patience`` seconds of such rounds without ``min_rounds`` others, all rounds count. Where ``min_rounds`` take more
    than three times ``max_seconds``, fewer are timed. ``reference``: what candidates are timed beside; ``auto`` is the
    baseline unless memory cannot hold both. Raises ValueError where ``min_rounds`` exceeds ``max_rounds``.
    """

    warmups: Natural = 2
    min_rounds: Count = 6
    max_rounds: Count = 200
    min_seconds: NonNegative = 2.0
    max_seconds: Positive = 10.0
    precision: Positive = 0.02
    clock: Literal["wall", "cpu"] = "wall"
    reference: Literal["auto", "baseline", "sentinel"] = "auto"
    patience: NonNegative = 6.0
    strain: Annotated[Share, Field(gt=0.0)] = 0.05
    slowdown: Positive = 0.1

    def __post_init__(self) -> None:
        """Refuse a least number of rounds above the largest."""
        if self.min_rounds > self.max_rounds:
            raise ValueError(f"min_rounds must be <= max_rounds, got {self.min_rounds} and {self.max_rounds}")

    def for_many(self, runs: int) -> Interleaved:
        """Return settings for ``runs`` candidates at once: twice as precise, in the time they would get one by one."""
        seconds = {name: getattr(self, name) * runs for name in ("min_seconds", "max_seconds", "patience")}
        return replace(self, **seconds, precision=self.precision / 2)

    def time(self, runs: Sequence[Run], pace: MachineSpeed | None = None, stop_below: float | None = None) -> Sampled:
        """Time ``runs`` in turns; the others are compared with the first.

        ``stop_below``: timing stops once the ratio of the last run is surely below it.
        """
        began = perf_counter()
        repeats = self._warm_up(runs)
        start, look, glance = perf_counter(), self.min_rounds, _FEWEST_BEHIND
        rounds: list[Round] = []
        counted: Sequence[Round] = []
        stopped: Stop | None = None
        while stopped is None:
            rounds.append(self._round(runs, repeats, len(rounds), pace))
            before, counted = len(counted), self._counted(rounds, pace)
            if len(counted) < before:  # enough calm rounds at last: what was looked at counts no more
                look, glance = self.min_rounds, _FEWEST_BEHIND
            if stop_below is not None and len(counted) >= glance:
                seconds = sum(each.seconds for each in counted)
                stopped = Stop.BEHIND if falls_behind(self._ratios(counted)[-1], seconds, stop_below) else None
                glance = next_look(glance)
            if stopped is None and (len(counted) >= look or perf_counter() - start >= self.max_seconds):
                stopped = self._stop(counted, len(rounds), perf_counter() - start)
                look = min(max(len(counted) + 1, next_look(look)), self.max_rounds)
        return self._sampled(rounds, counted, pace, stopped, perf_counter() - began)

    def _warm_up(self, runs: Sequence[Run]) -> list[int]:
        """Warm up, and return how often each run is repeated in its turn.

        Short runs are repeated more often, or their noise would dominate the ratios.
        """
        began, last = perf_counter(), list[Timing]()
        for done in range(self.warmups):
            if done and perf_counter() - began > self.max_seconds:  # one is enough of runs that take that long
                break
            last = [run() for run in runs]
        if not last:
            return [1] * len(runs)
        seconds = [timing.latency[0] for timing in last]
        turn = max(_SHORTEST, float(np.mean(seconds)))
        return [max(1, min(_MOST_REPEATS, round(turn / max(each, 1e-9)))) for each in seconds]

    @staticmethod
    def _round(runs: Sequence[Run], repeats: Sequence[int], index: int, pace: MachineSpeed | None) -> Round:
        order = range(len(runs)) if index % 2 == 0 else reversed(range(len(runs)))
        began, before = perf_counter(), read_strain()
        timings = {}
        for which in order:
            if pace is not None:
                pace.probe()
            timings[which] = merge([runs[which]() for _ in range(repeats[which])])
        if pace is not None:
            pace.probe()
        level = 1.0 if pace is None else pace.level(began)
        return Round(tuple(timings[which] for which in range(len(runs))), read_strain().since(before), level)

    def _counted(self, rounds: Sequence[Round], pace: MachineSpeed | None) -> Sequence[Round]:
        """Return the rounds that count: the calm ones, or all when calm ones do not come."""
        calm = self._calm(rounds, pace)
        waited = sum(each.seconds for each in rounds) - sum(each.seconds for each in calm)
        return calm if len(calm) >= self.min_rounds or waited <= self.patience else rounds

    def _calm(self, rounds: Sequence[Round], pace: MachineSpeed | None) -> Sequence[Round]:
        slow = (1.0 if pace is None else pace.best) * (1 + self.slowdown)
        wait = 1.0 if self.clock == "cpu" else self.strain  # CPU time passes for nobody who waits
        return [each for each in rounds if each.strain.wait <= wait and each.level <= slow]

    def _stop(self, counted: Sequence[Round], done: int, seconds: float) -> Stop | None:
        timed = sum(each.seconds for each in counted)
        enough = len(counted) >= max(FEWEST, self.min_rounds) and timed >= self.min_seconds
        if enough and self._error(counted) <= self.precision:
            return Stop.PRECISION
        if len(counted) >= self.max_rounds:
            return Stop.ROUNDS
        if seconds < self.max_seconds + self.patience:
            done = len(counted)  # later on strained rounds do as well: calm ones did not come
        late = seconds >= self.max_seconds and done >= self.min_rounds
        return Stop.SECONDS if late or seconds >= _OVERTIME * self.max_seconds + self.patience else None

    def _error(self, counted: Sequence[Round]) -> float:
        estimates = self._estimates(counted)
        return max(each.error for each in estimates[1:] or estimates)

    def _estimates(self, counted: Sequence[Round]) -> list[Estimate]:
        latency = estimate([self.seconds(each.timings[0]) for each in counted])
        return [latency, *(estimate(ratios) for ratios in self._ratios(counted)[1:])]

    def _ratios(self, counted: Sequence[Round]) -> list[tuple[float, ...]]:
        rates = np.array([[timing.items / self.seconds(timing) for timing in each.timings] for each in counted])
        return [tuple(column) for column in (rates / rates[:, :1]).T.tolist()]

    def seconds(self, timing: Timing) -> float:
        """Return the seconds of one run, the mean over its turn, by the clock of the settings."""
        return max(_TICK, float(np.mean(timing.cpu if self.clock == "cpu" else timing.latency)))

    def _sampled(
        self,
        rounds: Sequence[Round],
        counted: Sequence[Round],
        pace: MachineSpeed | None,
        stopped: Stop,
        seconds: float,
    ) -> Sampled:
        calm = self._calm(rounds, pace)
        if stopped is Stop.BEHIND:  # by what was looked at
            contended = len(counted) > len(calm)
        else:
            contended = len(calm) < min(self.min_rounds, len(rounds))
            counted = rounds if contended else calm
        runs = range(len(counted[0].timings))
        timings = tuple(merge([each.timings[run] for each in counted]) for run in runs)
        strain = sum((each.strain for each in counted), Contention())
        wall = sum(sum(timing.latency) for timing in timings)
        conditions = {
            "rounds": float(len(counted)),
            "rounds_strained": float(len(rounds) - len(calm)),
            "contended": float(contended),
            "timing_seconds": seconds,
            "wait": strain.wait,
            "steal": strain.steal,
            "page_faults": strain.faults / max(wall, _TICK),
            "cpu_per_wall": sum(sum(timing.cpu) for timing in timings) / max(wall, _TICK),
        }
        if pace is not None:
            conditions["probe"] = median(each.level for each in counted)
            conditions["slowdown"] = conditions["probe"] / pace.best
        ratios = tuple(self._ratios(counted))
        return Sampled(timings, ratios, tuple(self._estimates(counted)), stopped, conditions, contended)


def next_look(rounds: int) -> int:
    """Return the number of rounds after which to look again."""
    return max(rounds + 1, int(rounds * _LOOKS))


def falls_behind(ratios: Sequence[float], seconds: float, stop_below: float) -> bool:
    """Return whether the median of ``ratios``, which took ``seconds`` in all, is surely below ``stop_below``."""
    enough = len(ratios) >= _FEWEST_BEHIND and seconds >= _SHORTEST_BEHIND
    return enough and estimate(ratios).high * (1 + _STATES) < stop_below


def merge(timings: Sequence[Timing]) -> Timing:
    """Merge the samples of repeated runs of one workload."""

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(value for timing in timings for value in getattr(timing, name))

    merged = (all_of("latency"), timings[0].items, all_of("encode"), all_of("ttft"), all_of("tpot"), all_of("cpu"))
    if isinstance(timings[0], LoadTiming):
        return LoadTiming(*merged, all_of("answers"), timings[0].rate)
    return Timing(*merged)


def summarise(timing: Timing, workload: Workload) -> dict[str, float]:
    """Return metrics of :data:`objectives.metrics.METRICS` from raw timings; those that do not apply are absent."""
    if isinstance(timing, LoadTiming) and isinstance(workload, Loading):
        return load_metrics(timing, workload.slo())
    latency = np.asarray(timing.latency)
    metrics = {f"latency.p{q}": float(np.percentile(latency, q)) for q in (50, 90, 95, 99)}
    metrics |= {"latency.mean": float(latency.mean()), "latency.stdev": float(latency.std())}
    metrics["throughput"] = timing.items / metrics["latency.p50"]
    if timing.ttft:
        metrics["ttft"] = median(timing.ttft)
        metrics["per_token"] = metrics["latency.p50"] * workload.batch_size / timing.items
        metrics["prefill_throughput"] = workload.tokens_read / metrics["ttft"]
        if timing.encode:
            metrics["encode"] = median(timing.encode)
    if timing.tpot:
        steps = len(timing.latency) * (timing.items // workload.batch_size - 1)
        # A pass that yields several tokens is no time per token: then the mean of all.
        metrics["tpot"] = median(timing.tpot) if len(timing.tpot) == steps else sum(timing.tpot) / steps
        metrics["decode_throughput"] = workload.batch_size / metrics["tpot"]
    return metrics
