"""Ways to say how much faster one model is than another, side by side: benchmarks/measuring.py runs them in turns.

Every scheme gets the same two runs and answers with a speed-up, the seconds it took, and the seconds that it would need
to know the speed-up to within 2 % (95 %).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Literal

import torch
from torch.utils.benchmark import Timer

from objectives.measuring.interleaved import Interleaved
from objectives.measuring.pace import MachineSpeed
from objectives.types import Timing

Run = Callable[[], Timing]
PRECISION = 0.02
WARMUPS, LEAST, SECONDS = 10, 10, 10.0
"""optimum-benchmark's scheme: ten warm-ups, at least ten iterations and ten seconds, per model."""


@dataclass(frozen=True)
class Answer:
    """``needed``: seconds to within 2 %."""

    speedup: float
    seconds: float
    needed: float


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process keeps one core busy meanwhile."""
    code = "import time\nend = time.time() + 3600\nwhile time.time() < end: sum(range(1000))"
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.5)
        yield
    finally:
        other.kill()
        other.wait()


def ours(clock: Literal["wall", "cpu"], fixed: Run) -> Callable[[Run, Run], Answer]:
    """Interleaved pairs until the interval of the median ratio is narrow; ``fixed`` tells the machine's pace."""
    timing = Interleaved(clock=clock, precision=PRECISION, max_rounds=2000, max_seconds=30.0)
    pace = MachineSpeed(fixed, timing.seconds)

    def answer(dense: Run, model: Run) -> Answer:
        began = time.perf_counter()
        sampled = timing.time([dense, model], pace)
        seconds = time.perf_counter() - began
        found = sampled.estimates[1]
        return Answer(found.value, seconds, seconds * max(1.0, (found.error / PRECISION) ** 2))

    return answer


def blocks(statistic: Callable[[Sequence[float]], float], runs: int = 30) -> Callable[[Run, Run], Answer]:
    """One model after the other, a block of runs each."""

    def answer(dense: Run, model: Run) -> Answer:
        began = time.perf_counter()
        samples = [[run().latency[0] for _ in range(runs + 3)][3:] for run in (dense, model)]
        seconds = time.perf_counter() - began
        return Answer(statistic(samples[0]) / statistic(samples[1]), seconds, _needed(samples, seconds))

    return answer


def torch_timer(dense: Run, model: Run) -> Answer:
    """torch.utils.benchmark's blocked_autorange, medians."""
    began = time.perf_counter()
    threads = torch.get_num_threads()
    found = [
        Timer("run()", globals={"run": run}, num_threads=threads).blocked_autorange(min_run_time=1.0)
        for run in (dense, model)
    ]
    seconds = time.perf_counter() - began
    return Answer(found[0].median / found[1].median, seconds, _needed([each.times for each in found], seconds))


def optimum(dense: Run, model: Run) -> Answer:
    """optimum-benchmark's scheme, means; its schedule is the least that it takes."""
    began = time.perf_counter()
    samples = []
    for run in (dense, model):
        for _ in range(WARMUPS):
            run()
        times: list[float] = []
        while len(times) < LEAST or sum(times) < SECONDS:
            times.append(run().latency[0])
        samples.append(times)
    seconds = time.perf_counter() - began
    return Answer(mean(samples[0]) / mean(samples[1]), seconds, max(seconds, _needed(samples, seconds)))


def _needed(samples: Sequence[Sequence[float]], seconds: float) -> float:
    """Seconds until 1.96 standard errors of a ratio of means are within 2 %: the error falls with the root of time."""
    if min(map(len, samples)) < 2:
        return float("inf")
    error = 1.96 * sum((stdev(own) / mean(own)) ** 2 / len(own) for own in samples) ** 0.5
    return seconds * (error / PRECISION) ** 2


RIVALS: dict[str, Callable[[Run, Run], Answer]] = {
    "blocks, median": blocks(median),
    "blocks, min": blocks(min),
    "torch.utils.benchmark": torch_timer,
    "optimum-benchmark's scheme": optimum,
}
"""What others do, on any number of threads."""


def variation(values: Sequence[float]) -> float:
    """Coefficient of variation."""
    return stdev(values) / mean(values)
