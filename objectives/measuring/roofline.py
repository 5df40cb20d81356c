"""The roofline: the least time that a device needs, by what it has to read and what it has to compute.

A run cannot be faster than its bytes at the device's bandwidth, nor than its operations at the peak of its matrix
kernels; the slower of the two binds. A trial's share of that limit tells whether a faster kernel could still gain
anything. Peaks are measured on the device, not taken from its data sheet, and are the best of many repeats spread over
some seconds: a peak that other load lowered is no peak.

Bandwidth is that of memory. A model that is smaller than the last-level cache is read from there and may beat the
limit: shares above 1 are possible, are a fact about the model, and are not clipped.

Williams, Waterman & Patterson, Roofline (2009), https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from objectives.assets.store import cache_dir
from objectives.measuring.strain import read_strain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from objectives.types import Device

log = logging.getLogger(__name__)

Shape = tuple[int, int, int]
"""Rows, inputs and outputs of a matrix product."""

BUSY = 0.05
"""Share of the time that our threads waited, or that the host took, above which a peak is no peak."""

_ROW = 8192
_MIB = 2**20
_READ = "read"
_PARTS = 8
_GRAIN = 4 * _ROW * _PARTS
_SLICE = 0.03
_CPU_SHAPES: tuple[Shape, ...] = ((128, 576, 1536), (1024, 1024, 1024), (2048, 768, 3072))
"""The first is shorter than a scheduler's slice: beside other load it still runs undisturbed once in a while, where the
others lost half of their rate. Two and more threads need that many free processors at once."""
_CUDA_SHAPES: tuple[Shape, ...] = ((4096, 4096, 4096), (8192, 4096, 16384))


@dataclass(frozen=True)
class Peaks:
    """``bandwidth``: bytes/s that are read; ``flops``: operations/s by operand type, as torch names it.

    A multiplication and an addition are two operations. ``flops`` has ``float32`` and the types with a matrix kernel of
    their own. Raises ValueError when a rate is not a positive number or ``float32`` is missing.
    """

    bandwidth: float
    flops: Mapping[str, float]

    def __post_init__(self) -> None:
        """A cache file may hold anything."""
        rates = [self.bandwidth, *self.flops.values()]
        if "float32" not in self.flops or not all(math.isfinite(rate) and rate > 0 for rate in rates):
            raise ValueError(f"peaks must be positive numbers, one of them of float32, got {self}")

    def rate(self, operands: str) -> float:
        """Operations/s of a type; one without a kernel is computed in floats, so it gets the slowest of these."""
        return self.flops.get(operands) or min(rate for name, rate in self.flops.items() if "float" in name)


@dataclass(frozen=True)
class Work:
    """What a run has to do at least: ``bytes`` to read, and ``operations`` by operand type (see :class:`Peaks`)."""

    bytes: float
    operations: Mapping[str, float]


def limit(work: Work, peaks: Peaks) -> tuple[float, Literal["memory", "compute"]]:
    """Seconds that ``work`` takes at least, and what binds; kernels of several types run one after another."""
    reading = work.bytes / peaks.bandwidth
    computing = sum(operations / peaks.rate(operands) for operands, operations in work.operations.items())
    return (reading, "memory") if reading >= computing else (computing, "compute")


def peaks(device: Device, key: str) -> Peaks:
    """The peaks of ``device``, probed once per ``key`` and number of torch's threads.

    ``key`` names the hardware and libraries, and becomes part of a file name in the cache folder. A file that cannot be
    read is made anew. Processes that race probe both, and either one's file is whole. What was probed while other work
    took processors is used and not kept.
    """
    import torch

    path = cache_dir() / f"roofline-{key}.json"
    slot = f"{device.name}, {torch.get_num_threads()} threads"
    found = _stored(path).get(slot)
    if found is None:
        before = read_strain()
        found = probe(device.name)
        strain = read_strain().since(before)
        if max(strain.wait, strain.steal) > BUSY:
            log.warning("the device's peaks were probed on a busy machine: shares of its limit may be too high")
            return found
        _store(path, {**_stored(path), slot: found})
    return found


def _stored(path: Path) -> dict[str, Peaks]:
    try:
        return {slot: Peaks(**entry) for slot, entry in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _store(path: Path, entries: Mapping[str, Peaks]) -> None:
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(
            json.dumps({slot: asdict(entry) for slot, entry in entries.items()}, indent=1), encoding="utf-8"
        )
        os.replace(part, path)
    except OSError as error:  # the figures are good all the same
        log.warning("the peaks of the device are not kept: %s", error)
        with suppress(OSError):
            part.unlink()


@dataclass(frozen=True)
class Effort:
    """What a probe tries: reading ``block`` bytes in parts, products of ``shapes``, in turns for ``seconds``."""

    block: int
    shapes: Sequence[Shape]
    seconds: float = 2.5

    def __post_init__(self) -> None:
        """Whole rows in every part."""
        if self.block <= 0 or self.block % _GRAIN:
            raise ValueError(f"block must be a multiple of {_GRAIN} bytes, got {self.block}")


def probe(device_type: str, effort: Effort | None = None) -> Peaks:
    """Measure the current device of ``device_type``, ``cpu`` or ``cuda``, with as many threads as torch is set to.

    Takes below 5 seconds by default and leaves torch's random state alone.
    """
    import torch

    effort = effort or _effort(device_type)
    wait = torch.cuda.synchronize if device_type == "cuda" else _nothing
    with torch.inference_mode():
        kernels = _readers(torch.ones(effort.block // 4, device=device_type))
        for dtype in _operand_types(device_type):
            kernels += [_multiplier(shape, dtype, device_type) for shape in effort.shapes]
        rates = _best_rates(kernels, wait, effort.seconds)
    return Peaks(rates.pop(_READ), rates)


def _effort(device_type: str) -> Effort:
    if device_type == "cuda":
        import torch

        block = min(8192 * _MIB, torch.cuda.mem_get_info()[0] // 4)  # long enough to read that its launch is nothing
        return Effort(block // _GRAIN * _GRAIN, _CUDA_SHAPES)
    block = min(max(256 * _MIB, 4 * _cache_bytes()), 1024 * _MIB)  # no more: memory may be short
    return Effort(block // _GRAIN * _GRAIN, _CPU_SHAPES)


def _cache_bytes() -> int:
    """Bytes of the last-level caches of all processors that this process may use; 0 where Linux does not tell."""
    sizes: dict[str, int] = {}
    for processor in os.sched_getaffinity(0):
        levels = sorted(Path(f"/sys/devices/system/cpu/cpu{processor}/cache").glob("index*"))
        try:
            sizes[(levels[-1] / "shared_cpu_list").read_text(encoding="utf-8")] = _kib(
                (levels[-1] / "size").read_text(encoding="utf-8")
            )
        except (OSError, ValueError, IndexError):
            continue
    return sum(sizes.values())


def _kib(text: str) -> int:
    return int(text.strip().removesuffix("K")) * 1024


def _nothing() -> None:
    """A CPU has done what it was asked."""


@dataclass(frozen=True)
class _Kernel:
    """``work``: bytes or operations of one run, which count for ``peak``."""

    peak: str
    work: float
    run: Callable[[], object]


def _readers(block: Tensor) -> list[_Kernel]:
    """Ways to read one part of ``block`` (fp32, one dimension); which is fastest depends on the CPU and its BLAS.

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


def _operand_types(device_type: str) -> list[torch.dtype]:
    """Those with a fast matrix kernel here."""
    import torch

    from objectives.packing.capability import cpu_kernels

    if device_type == "cuda":
        since = {torch.bfloat16: (8, 0), torch.int8: (7, 5), torch.float8_e4m3fn: (8, 9)}
        capability = torch.cuda.get_device_capability()
        return [torch.float32, *(dtype for dtype, first in since.items() if capability >= first)]
    fast = {torch.bfloat16: cpu_kernels().bf16, torch.int8: cpu_kernels().int8}
    return [torch.float32, *(dtype for dtype, is_fast in fast.items() if is_fast)]


def _multiplier(shape: Shape, dtype: torch.dtype, device_type: str) -> _Kernel:
    """Rows [m, k] times a weight [n, k], as a linear layer does; random numbers, since zeros draw less power."""
    import torch

    m, k, n = shape
    generator = torch.Generator(device_type).manual_seed(0)
    sizes = ((m, k), (n, k))
    if dtype is torch.int8:
        rows, weight = (
            torch.randint(-127, 128, size, dtype=dtype, generator=generator, device=device_type) for size in sizes
        )
    else:
        rows, weight = (torch.randn(size, generator=generator, device=device_type).to(dtype) for size in sizes)
    return _Kernel(str(dtype).removeprefix("torch."), 2.0 * m * k * n, _product(rows, weight.t()))


def _product(rows: Tensor, weight: Tensor) -> Callable[[], object]:
    """The fastest product of two matrices of one type; into memory that is there, so that pages are not counted."""
    import torch

    if rows.dtype is torch.float8_e4m3fn:
        one = torch.ones((), device=rows.device)
        return lambda: torch._scaled_mm(rows, weight, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    multiply = torch._int_mm if rows.dtype is torch.int8 else torch.mm
    into = torch.empty_like(multiply(rows, weight))
    return lambda: multiply(rows, weight, out=into)


def _best_rates(kernels: Sequence[_Kernel], wait: Callable[[], None], seconds: float) -> dict[str, float]:
    """The highest work/s seen for each peak; all kernels in turns, so that a disturbance hits none of them alone."""
    rates: dict[str, float] = {}
    end = perf_counter() + seconds
    for turn in count():
        if turn >= 2 and perf_counter() >= end:  # the first turn only warms up
            break
        for kernel in kernels:
            rates[kernel.peak] = max(rates.get(kernel.peak, 0.0), kernel.work / _fastest(kernel, wait))
    return rates


def _fastest(kernel: _Kernel, wait: Callable[[], None]) -> float:
    """Seconds of the fastest of some runs, one at least."""
    fastest, end = math.inf, perf_counter() + _SLICE
    while perf_counter() < end:
        wait()
        start = perf_counter()
        kernel.run()
        wait()
        fastest = min(fastest, perf_counter() - start)
    return fastest
