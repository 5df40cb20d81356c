"""Compares what compression promised with what it delivered, beside the dense model at the same batch size.

"I quantised it, and it is no faster and no smaller" is the field's loudest complaint. So every trial carries both
sides. Where the promise was not kept, it also carries the reason, as far as that can be read off the model.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from objectives.measuring.footprint import Footprint
from objectives.measuring.gains import SMALLER, size_of, speed_of
from objectives.measuring.roofline import limit
from objectives.models.blocks import Block
from objectives.models.notes import notes_of
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.linear import WIDENING, PackedLinear
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Runner, RunsInTorch, Workload
from objectives.types import GainFacts, NoteCode, Size, Speed

LAUNCH_BOUND = 0.15
"""Share of the device's limit below which a run spends its time on calls rather than on work."""
ALIGNED = 32
"""Number of output channels that kernels take at once."""


def promises(shapes: Footprint, dense: Footprint, workload: Workload, peaks: Peaks) -> dict[str, float]:
    """Return the speed-up that bytes and operations allow, and the operations.

    The speed-up is the ratio of the least seconds that the dense and the compressed model need.
    """
    operations, full = _operations(shapes, workload), _operations(dense, workload)
    promised = least_seconds(dense, workload, peaks) / least_seconds(shapes, workload, peaks)
    return {"promised_speedup": promised, "flops": operations, "flops_ratio": operations / full}


def _laps(workload: Workload, phase: str) -> int:
    return workload.items // workload.batch_size - 1 if phase == "decode" else 1


def least_seconds(shapes: Footprint, workload: Workload, peaks: Peaks) -> float:
    """Return the least seconds that a whole run takes at the device's peaks."""
    return sum(limit(work, peaks)[0] * _laps(workload, phase) for phase, work in shapes.work.items())


def _operations(shapes: Footprint, workload: Workload) -> float:
    return sum(sum(work.operations.values()) * _laps(workload, phase) for phase, work in shapes.work.items())


def judged(metrics: Mapping[str, float], model: Runner, rows: int) -> GainFacts:
    """Return the gains in speed and memory, and the likeliest reason for each that is missing.

    ``rows``: of the largest product of the run. A gain in speed counts when its interval lies above 1; the reasons are
    texts for people, empty where nothing explains it.
    """
    speed, size = speed_of(metrics), size_of(metrics)
    assert speed is not None
    assert size is not None
    slow = "" if speed is Speed.FASTER else _slow(metrics, speed, model, rows)
    return GainFacts(speed, size, slow, "" if size is Size.SMALLER else _large(metrics))


def _slow(metrics: Mapping[str, float], speed: Speed, model: Runner, rows: int) -> str:
    """Return the likeliest reason for which a compressed model is not faster."""
    if not isinstance(model, RunsInTorch):
        return f"this runtime's kernels take longer than torch's at {rows} rows" if speed is Speed.SLOWER else ""
    blocks = list(model.model.blocks())
    linears: list[nn.Module] = [block.linear(path) for block in blocks for path in block.stack.block_linears]
    low = [each for each in linears if not isinstance(each, Bf16Linear)]
    unpacked = [each for each in low if _unpacks(each, rows)]
    if len(unpacked) > len(linears) / 2:
        return f"dequantised path, {rows} rows are more than the low-bit kernels are fast for"
    if any(note.code is NoteCode.KEPT_IN_16_BITS for note in notes_of(model.notes)):
        return "layers whose shape fits no kernel stay in 16 bits"
    uneven = [name for block in blocks for name in _uneven(block)]
    if len(uneven) > len(linears) / 10:  # one of many explains nothing
        return f"unaligned widths, {len(uneven)} linears are no multiple of {ALIGNED} ({uneven[0]})"
    share = max((value for name, value in metrics.items() if name.startswith("roofline.")), default=1.0)
    if share < LAUNCH_BOUND:
        return f"launch-bound, calls take longer than their work ({share:.0%} of the device's limit)"
    return f"its kernels take longer than the dense ones at {rows} rows" if speed is Speed.SLOWER else ""


def _unpacks(linear: nn.Module, rows: int) -> bool:
    """Return whether a low-bit linear widens its weight for so many rows."""
    if isinstance(linear, PackedLinear):
        return linear.path(rows) in WIDENING
    return rows > getattr(linear, "kernel_rows", rows)


def _uneven(block: Block) -> list[str]:
    linears = {path: block.linear(path) for path in block.stack.block_linears}
    return [f"{block.name}.{path}" for path, linear in linears.items() if linear.out_features % ALIGNED]


def _large(metrics: Mapping[str, float]) -> str:
    if "runtime_bytes" in metrics:
        at_rest, stored = metrics["runtime_bytes"] / 2**20, metrics["weight_bytes"] / 2**20
        return f"the engine holds {at_rest:.0f} MiB at rest for {stored:.0f} MiB of weights"
    if metrics["weight_ratio"] < SMALLER:
        share = metrics["activation_peak"] / metrics["peak_memory"]
        return f"weights shrank to {metrics['weight_ratio']:.2f}x, but activations are {share:.0%} of the peak"
    return "its weights take as much"
