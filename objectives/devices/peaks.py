"""Measures how fast a device reads and multiplies at best: no data sheet is believed.

A peak is the best of many repeats spread over some seconds: one that other load lowered is no peak. The device says
what is tried (:class:`Effort`); how it is tried is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

from objectives.protocols.readings import Peaks

Shape = tuple[int, int, int]
"""Rows, inputs and outputs of a matrix product."""

MIB = 2**20
_ROW = 8192
_READ = "read"
_PARTS = 8
_GRAIN = 4 * _ROW * _PARTS
_SLICE = 0.03


@dataclass(frozen=True)
class Effort:
    """The work of a probe: reading ``block`` bytes in parts and products of ``shapes`` with operands of ``types``.

    ``seconds``: how long they take turns. Raises ValueError for a block whose parts have no whole rows.
    """

    block: int
    shapes: Sequence[Shape]
    types: Sequence[torch.dtype]
    seconds: float = 2.5

    def __post_init__(self) -> None:
        """Raise ValueError unless every part has whole rows."""
        if self.block <= 0 or self.block % _GRAIN:
            raise ValueError(f"block must be a multiple of {_GRAIN} bytes, got {self.block}")


def whole(size: int) -> int:
    """Return the largest block of at most ``size`` bytes whose parts have whole rows."""
    return size // _GRAIN * _GRAIN


def nothing() -> None:
    """Do not wait: a CPU has done what it was asked."""


def probe(place: str, effort: Effort, wait: Callable[[], object] = nothing) -> Peaks:
    """Measure the peaks of torch's device ``place`` with as many threads as torch is set to.

    ``wait`` returns when the device has done all that it was asked. The probe takes less than 5 seconds by default and
    leaves torch's random state alone.
    """
    import torch

    with torch.inference_mode():
        kernels = _readers(torch.ones(effort.block // 4, device=place))
        for dtype in effort.types:
            kernels += [_multiplier(shape, dtype, place) for shape in effort.shapes]
        rates = _best_rates(kernels, wait, effort.seconds)
    return Peaks(rates.pop(_READ), rates)


@dataclass(frozen=True)
class _Kernel:
    """A kernel that is timed. ``work``: bytes or operations of one run, which count for ``peak``."""

    peak: str
    work: float
    run: Callable[[], object]


def _readers(block: Tensor) -> list[_Kernel]:
    """Return ways to read a part of ``block`` (fp32, one dimension); which is fastest depends on the CPU and its BLAS.

    The parts take turns, so that none is in a cache when it is read again, and a single run is short.
    """
    import torch

    parts, vector = cycle(block.view(_PARTS, -1, _ROW)), torch.ones(_ROW, device=block.device)
    ways: list[Callable[[], object]] = [
        lambda: next(parts).sum(),
        lambda: next(parts).amax(),
        lambda: next(parts) @ vector,
    ]
    return [_Kernel(_READ, 4.0 * block.numel() / _PARTS, way) for way in ways]


def _multiplier(shape: Shape, dtype: torch.dtype, place: str) -> _Kernel:
    """Return a kernel that multiplies rows [m, k] by a weight [n, k], as a linear layer does.

    The numbers are random, since zeros draw less power.
    """
    import torch

    m, k, n = shape
    generator = torch.Generator(place).manual_seed(0)
    sizes = ((m, k), (n, k))
    if dtype is torch.int8:
        rows, weight = (
            torch.randint(-127, 128, size, dtype=dtype, generator=generator, device=place) for size in sizes
        )
    else:
        rows, weight = (torch.randn(size, generator=generator, device=place).to(dtype) for size in sizes)
    return _Kernel(str(dtype).removeprefix("torch."), 2.0 * m * k * n, _product(rows, weight.t()))


def _product(rows: Tensor, weight: Tensor) -> Callable[[], object]:
    """Return the fastest product of two matrices of one type.

    Where a kernel can, it writes into memory that is there already, so that page faults are not counted.
    """
    import torch

    if rows.dtype is torch.float8_e4m3fn:
        one = torch.ones((), device=rows.device)
        return lambda: torch._scaled_mm(rows, weight, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    multiply = torch._int_mm if rows.dtype is torch.int8 else torch.mm
    into = torch.empty_like(multiply(rows, weight))
    return lambda: multiply(rows, weight, out=into)


def _best_rates(kernels: Sequence[_Kernel], wait: Callable[[], object], seconds: float) -> dict[str, float]:
    """Return the highest work/s of each peak; all kernels in turns, so that a disturbance hits none of them alone."""
    rates: dict[str, float] = {}
    end = perf_counter() + seconds
    for turn in count():
        if turn >= 2 and perf_counter() >= end:  # the first turn only warms up
            break
        for kernel in kernels:
            rates[kernel.peak] = max(rates.get(kernel.peak, 0.0), kernel.work / _fastest(kernel, wait))
    return rates


def _fastest(kernel: _Kernel, wait: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some runs, one at least."""
    fastest, end = math.inf, perf_counter() + _SLICE
    while perf_counter() < end:
        wait()
        start = perf_counter()
        kernel.run()
        wait()
        fastest = min(fastest, perf_counter() - start)
    return fastest
