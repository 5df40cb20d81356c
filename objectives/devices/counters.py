"""The hardware's own counters of energy: RAPL of the CPU's packages and their memory, NVML of a GPU.

Counters count the whole package or card, whoever uses it. One that may not be read (Linux keeps RAPL for root) does not
answer.

RAPL: https://docs.kernel.org/power/powercap/powercap.html; read from files made up by the tests only.
NVML: https://docs.nvidia.com/deploy/nvml-api; ran on an H200.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from objectives.devices import nvidia


@dataclass(frozen=True)
class Rapl:
    """A RAPL domain of the CPU, by its folder.

    Its counter turns over after 65 to 262 kJ: an interval must be shorter than one turn.
    """

    folder: Path
    name: str
    span: float
    tick: float = 2.0**-14  # J, Intel's usual unit
    period: float = 1e-3

    def read(self) -> float | None:
        """Return the joules now, from sysfs."""
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
        """Return the joules now, as the driver tells."""
        return nvidia.total_energy(self.index)


def rapl(root: Path = Path("/sys/class/powercap")) -> Iterator[Rapl]:
    """Yield packages, and the memory beside them; cores are a part of their package, and ``psys`` is the sum of all.

    ``root``: the powercap tree.
    """
    for folder in sorted(root.glob("intel-rapl:*")):
        name, span = _text(folder / "name"), _number(folder / "max_energy_range_uj")
        kind = "package" if folder.name.count(":") == 1 else "dram"
        if name is not None and name.startswith(kind) and span is not None:
            yield Rapl(folder, name, span * 1e-6)


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    """Read a file of sysfs; one that may not be read counts as absent."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
