"""Measures the contention for the processor while something was timed.

Linux counts, for every thread, how long it was ready and waited for a processor (``schedstat``), and for the machine
how long its host ran others (``steal``). A round during which our threads waited is no sample of our speed.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from objectives.devices.helpers import pids


@dataclass(frozen=True)
class Contention:
    """Counters since the process or the machine started, or over a stretch of time; zero where the system has none.

    ``ran``, ``waited``: seconds of all our threads; ``stolen``, ``passed``: ticks of all processors. ``faults``: pages
    that the kernel had to bring or clear for us.
    """

    ran: float = 0.0
    waited: float = 0.0
    stolen: float = 0.0
    passed: float = 0.0
    faults: float = 0.0

    def since(self, earlier: Contention) -> Contention:
        """Return what was counted since ``earlier``."""
        return Contention(*(getattr(self, name) - getattr(earlier, name) for name in self.__dataclass_fields__))

    def __add__(self, other: Contention) -> Contention:
        """Return the sum over two stretches of time."""
        return Contention(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def wait(self) -> float:
        """Return the share of the time in which our threads wanted to run and did not."""
        return _share(self.waited, self.ran + self.waited)

    @property
    def steal(self) -> float:
        """Return the share of the machine's time that its host took."""
        return _share(self.stolen, self.passed)


def read_strain(proc: Path = Path("/proc")) -> Contention:
    """Read the counters now."""
    ran = waited = 0.0
    for file in (each for name in ("self", *map(str, pids())) for each in proc.glob(f"{name}/task/*/schedstat")):
        try:
            fields = file.read_text(encoding="utf-8").split()
        except OSError:  # the thread ended
            continue
        ran, waited = ran + int(fields[0]) / 1e9, waited + int(fields[1]) / 1e9
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Contention(ran, waited, *_ticks(proc / "stat"), float(usage.ru_minflt + usage.ru_majflt))


def _ticks(file: Path) -> tuple[float, float]:
    """Return the stolen ticks and all ticks of all processors.

    Their line has the fields user nice system idle iowait irq softirq steal.
    """
    try:
        ticks = [float(field) for field in file.read_text(encoding="utf-8").partition("\n")[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0.0, 0.0)


def _share(part: float, whole: float) -> float:
    return max(0.0, part) / whole if whole > 0 else 0.0
