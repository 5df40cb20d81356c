"""Measures how long each path of a packed linear takes, on a weight of random numbers.

All paths take turns, so that other load meets them alike, and the fastest run of each counts: other load only adds to
it. The clock is the CPU time of the calling thread, which does its share of every product: it stands still while other
processes run and while the thread sleeps until others have done their share. On a busy machine the wall clock ranks
paths of two threads at random; by this clock they nearly keep their places, since only waiting without sleep is added.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from time import thread_time

import torch
from torch import Tensor

from objectives.packing.capability import cpu_kernels
from objectives.packing.paths import ROWS, Shape

SECONDS = 0.04
"""CPU time for which all paths of one number of rows take turns."""
LEAST = 4
"""Turns at least; the first one only warms up."""
GAIN, GAIN_OF_THREADS = 0.05, 0.15
"""Share of the rule's time that another path must save to go before it: less is noise, with several threads more so."""

Path = Callable[[Tensor], Tensor]
"""Multiplies rows [m, in] by a weight."""
Sample = Callable[[Tensor], tuple[Mapping[str, Path], Callable[[int], str]]]
"""Returns the paths of a linear with a given weight fp32 [out, in], and which is the rule for a number of rows."""


def times(shape: Shape, sample: Sample) -> dict[int, dict[str, float]]:
    """Return the seconds of every path, by number of rows and name, those of the rule less its :data:`GAIN`.

    torch's random state stays as it is.
    """
    inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        calls, rule = sample(torch.randn(outputs, inputs, generator=generator))
        rows = torch.randn(max(ROWS), inputs, generator=generator).to(cpu_kernels().compute_dtype)
        found = {count: _fastest(calls, rows[:count]) for count in ROWS}
    gain = GAIN if torch.get_num_threads() == 1 else GAIN_OF_THREADS
    for count, seconds in found.items():
        seconds[rule(count)] *= 1.0 - gain
    return found


def _fastest(calls: Mapping[str, Path], rows: Tensor) -> dict[str, float]:
    found = dict.fromkeys(calls, math.inf)
    end, turn = thread_time() + SECONDS, 0
    order, names = random.Random(0), list(calls)
    while turn < LEAST or thread_time() < end:
        order.shuffle(names)  # some empty the caches for the next one
        for name in names:
            began = thread_time()
            calls[name](rows)
            if turn:
                found[name] = min(found[name], thread_time() - began)
        turn += 1
    return found
