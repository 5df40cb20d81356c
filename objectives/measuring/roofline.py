"""The roofline: the least time that a device needs, by what it has to read and what it has to compute.

A run cannot be faster than its bytes at the device's bandwidth, nor than its operations at the peak of its matrix
kernels; the slower of the two binds. A trial's share of that limit tells whether a faster kernel could still gain
anything. Peaks are measured on the device (:mod:`objectives.devices.peaks`), once per machine.

Bandwidth is that of memory. A model that is smaller than the last-level cache is read from there and may beat the
limit: shares above 1 are possible, are a fact about the model, and are not clipped.

Williams, Waterman & Patterson, Roofline (2009), https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from objectives.assets.store import cache_dir
from objectives.measuring.strain import read_strain
from objectives.protocols.readings import Peaks

if TYPE_CHECKING:
    from objectives.protocols.running import Device

log = logging.getLogger(__name__)

BUSY = 0.05
"""Share of the time that our threads waited, or that the host took, above which a peak is not kept."""


@dataclass(frozen=True)
class Work:
    """The least that a run has to do: ``bytes`` to read, and ``operations`` by operand type (see :class:`Peaks`)."""

    bytes: float
    operations: Mapping[str, float]


def limit(work: Work, peaks: Peaks) -> tuple[float, Literal["memory", "compute"]]:
    """Return the least seconds that ``work`` takes, and what binds; kernels of several types run one after another."""
    reading = work.bytes / peaks.bandwidth
    computing = sum(operations / peaks.rate(operands) for operands, operations in work.operations.items())
    return (reading, "memory") if reading >= computing else (computing, "compute")


def peaks(device: Device, key: str) -> Peaks:
    """Return the peaks of ``device``, measured once per ``key``, name of the device and number of torch's threads.

    ``key`` names the hardware and libraries, and becomes part of a file name in the cache folder. A file that cannot be
    read is made anew. Of processes that race each one measures, and either one's file is whole. Peaks that were
    measured while other work took processors are used and not kept.
    """
    import torch

    path = cache_dir() / f"roofline-{key}.json"
    slot = f"{device.name}, {torch.get_num_threads()} threads"
    measured = _stored(path).get(slot)
    if measured is None:
        before = read_strain()
        measured = device.peaks()
        strain = read_strain().since(before)
        if max(strain.wait, strain.steal) > BUSY:
            log.warning("the device's peaks were probed on a busy machine: shares of its limit may be too high")
            return measured
        _store(path, {**_stored(path), slot: measured})
    return measured


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
