"""Energy by the hardware's own counters: RAPL of the CPU's packages and their memory, NVML of a GPU.

Counters count the whole package or card, whoever uses it. Where there is none, or it may not be read (Linux keeps
RAPL for root), there is no meter: energy that nobody counted is absent, never zero.

RAPL: https://docs.kernel.org/power/powercap/powercap.html; read from files made up by the tests only.
NVML: https://docs.nvidia.com/deploy/nvml-api; ran on an H200.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from objectives.devices import nvidia

Reading = tuple[float | None, ...]
"""Joules on every counter of a meter; None where it does not answer."""


class Counter(Protocol):
    """Counts joules up to ``span`` and begins anew."""

    @property
    def name(self) -> str:
        """What it counts, for the record."""

    @property
    def span(self) -> float:
        """Joules of one turn; infinite where it never turns over."""

    @property
    def tick(self) -> float:
        """Joules of its smallest step."""

    @property
    def period(self) -> float:
        """Seconds between two of its updates."""

    def read(self) -> float | None:
        """Joules now; None where it does not answer."""


@dataclass(frozen=True)
class Rapl:
    """A domain of the CPU, by its folder. Turns over after 65 to 262 kJ: an interval must be shorter than one turn."""

    folder: Path
    name: str
    span: float
    tick: float = 2.0**-14  # J, Intel's usual unit
    period: float = 1e-3

    def read(self) -> float | None:
        """See :class:`Counter`."""
        microjoules = _number(self.folder / "energy_uj")
        return None if microjoules is None else microjoules * 1e-6


@dataclass(frozen=True)
class Nvml:
    """A GPU, by torch's index. The driver updates its counter about every 100 ms."""

    index: int
    name: ClassVar[str] = "gpu"
    span: ClassVar[float] = math.inf
    tick: ClassVar[float] = 1e-3
    period: ClassVar[float] = 0.1

    def read(self) -> float | None:
        """See :class:`Counter`."""
        return nvidia.total_energy(self.index)


@dataclass(frozen=True)
class EnergyMeter:
    """All counters of a device: ``start = meter.read()``, then ``meter.since(start)``."""

    counters: tuple[Counter, ...]

    def read(self) -> Reading:
        """Where the counters stand."""
        return tuple(counter.read() for counter in self.counters)

    def since(self, start: Reading) -> float | None:
        """Joules used since ``start``, all counters together; None where one of them does not answer."""
        total = 0.0
        for counter, before, now in zip(self.counters, start, self.read(), strict=True):
            if before is None or now is None:
                return None
            total += now - before if now >= before else now - before + counter.span
        return total if math.isfinite(total) else None

    def meaningful(self, joules: float, seconds: float) -> bool:
        """Whether a difference over so long an interval is more than the grain of the slowest counter."""
        return all(joules >= counter.tick and seconds >= counter.period for counter in self.counters)


def find_meter(device_name: str, index: int = 0, root: Path = Path("/sys/class/powercap")) -> EnergyMeter | None:
    """The meter of ``cpu`` or of torch's GPU ``index``; None where nothing counts. ``root``: of the powercap tree."""
    candidates: Iterator[Counter] = iter((Nvml(index),)) if device_name == "cuda" else _rapl_domains(root)
    counters = tuple(counter for counter in candidates if counter.read() is not None)
    return EnergyMeter(counters) if counters else None


def _rapl_domains(root: Path) -> Iterator[Rapl]:
    """Packages, and the memory beside them; cores are a part of their package, and ``psys`` is the sum of all."""
    for folder in sorted(root.glob("intel-rapl:*")):
        name, span = _text(folder / "name"), _number(folder / "max_energy_range_uj")
        kind = "package" if folder.name.count(":") == 1 else "dram"
        if name is not None and name.startswith(kind) and span is not None:
            yield Rapl(folder, name, span * 1e-6)


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    """Of a file of sysfs; one that may not be read counts as absent."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
