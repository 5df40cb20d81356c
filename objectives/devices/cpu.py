"""The CPU: packed linears of our own, and two counts of peak memory.

What torch's allocator hands out is counted exactly (:mod:`objectives.devices.allocations`). Beside it stands the
process's high-water mark (``VmHWM``), reset by writing 5 to ``/proc/self/clear_refs``. With glibc's defaults that is
36-123 % too high, because freed blocks stay in the heap; for its pass they are given back (:mod:`.heap`).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.assets.store import cache_dir
from objectives.devices import heap
from objectives.devices.control_groups import memory_free, memory_limits
from objectives.devices.counters import Rapl, rapl
from objectives.devices.peaks import MIB, Effort, Shape, probe, whole
from objectives.errors import Unsupported
from objectives.protocols.optional import Detectable
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Device
from objectives.settings import FORBID, Count
from objectives.types import Memory, Phase

if TYPE_CHECKING:
    from torch import nn

    from objectives.models import LoadedModel
    from objectives.packing.codes import Codes
    from objectives.protocols.running import Runner, Stopwatch, Workload
    from objectives.types import Scheme

_SHAPES: tuple[Shape, ...] = ((128, 576, 1536), (1024, 1024, 1024), (2048, 768, 3072))
"""The first product is shorter than a scheduler's slice: beside other load it still runs undisturbed once in a while,
where the others lost half of their rate. Two and more threads need that many free processors at once."""
_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Variables that keep kernels from instructions which the processor has."""


@settings(frozen=True, kw_only=True, config=FORBID)
class Cpu(Device, Detectable):
    """The CPU of this machine. ``threads``: how many torch uses; by default all that this process may run on."""

    threads: Count | None = None
    name: str = "cpu"

    @property
    @override
    def bits(self) -> frozenset[int]:
        return frozenset({32, 16, 8, 4})

    @override
    def absent(self) -> str | None:
        return None

    @override
    def total_memory(self) -> int | None:
        """Return the bytes of RAM and swap, or what the container may use of them."""
        fields = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        machine = 1024 * (int(fields["MemTotal:"]) + int(fields.get("SwapTotal:", 0)))
        return min(machine, *memory_limits(), machine)

    @override
    def start(self) -> None:
        """Set up the process that evaluates."""
        import torch

        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        heap.keep_freed()
        self.use_paths()

    def use_paths(self, carried: Mapping[str, Any] | None = None) -> None:
        """Let packed linears take the paths that were fastest here; ``carried``: those of a winner.

        They are measured once for this processor, torch and number of threads.
        """
        import torch

        from objectives.packing import paths

        limits = {name: os.environ[name] for name in _LIMITS if name in os.environ}
        paths.use({**self.describe(), "torch": torch.__version__, **limits}, cache_dir(), carried)

    @override
    def describe(self) -> dict[str, str]:
        """Return the processor and the threads, for the record."""
        import torch

        names = [
            line
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        return {
            "device": "cpu",
            "device_name": names[0].split(":")[1].strip() if names else "unknown CPU",
            "cores": str(len(os.sched_getaffinity(0))),
            "threads": str(torch.get_num_threads()),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }

    @override
    def pack(self, linear: nn.Linear, bits: int, codes: Codes | None, scheme: Scheme) -> nn.Module:
        from objectives.packing.bf16 import Bf16Linear
        from objectives.packing.fp32 import Fp32Linear
        from objectives.packing.int4 import Int4Linear
        from objectives.packing.int8 import Int8Linear, Int8WeightLinear

        bias = None if linear.bias is None else linear.bias.detach()
        if bits == 32:
            return Fp32Linear.from_linear(linear)
        if bits == 16:
            return Bf16Linear.from_linear(linear)
        if bits == 8 and scheme == "fp8":
            raise Unsupported("quantization.scheme: no CPU kernel multiplies fp8, choose w8a8 or weight_only")
        if bits == 8:
            kind = Int8Linear if scheme == "w8a8" else Int8WeightLinear
            return kind.from_weight(linear.weight.detach(), bias).repack_()
        if bits == 4 and codes is not None:
            return Int4Linear.from_codes(codes.values, codes.scale, codes.zero, bias, codes.inputs)
        raise Unsupported(f"no CPU kernel stores {bits} bits")

    @property
    @override
    def embeddings(self) -> frozenset[int]:
        return frozenset({16, 8})

    @override
    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        from objectives.packing.embedding import pack_embeddings_

        if bits != 8:
            raise Unsupported(f"embeddings: 16 or 8 bits on a CPU, got {bits}")
        pack_embeddings_(model)

    @override
    def to_device_(self, model: LoadedModel) -> None:
        """Make everything that is not yet packed run in the CPU's compute dtype; weights stay in bf16.

        A model whose linears have 32 bits has them throughout.
        """
        import torch
        from torch import nn

        from objectives.packing.bf16 import Bf16Linear
        from objectives.packing.capability import cpu_kernels
        from objectives.packing.fp32 import Fp32Linear
        from objectives.packing.linear import PackedLinear

        wide = any(isinstance(module, Fp32Linear) for module in model.module.modules())
        dtype, kind = (torch.float32, Fp32Linear) if wide else (cpu_kernels().compute_dtype, Bf16Linear)
        for path in (path for stack in model.family.stacks for path in stack.tables):
            table = model.module.base_model.get_submodule(path)
            table.weight.data = table.weight.data.to(dtype)
        for name, module in list(model.module.named_modules()):
            if type(module) is nn.Linear:
                model.module.set_submodule(name, kind.from_linear(module))
            elif isinstance(module, nn.Embedding):
                if wide:
                    module.weight.data = module.weight.data.float()
                module.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))
            elif not isinstance(module, PackedLinear):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)

    @override
    def arrange_(self, model: LoadedModel) -> None:
        from objectives.packing.bf16 import block_linears_
        from objectives.packing.linear import settle_paths

        block_linears_(model)
        settle_paths(model.module)

    @property
    @override
    def writes_checkpoints(self) -> bool:
        return True

    @property
    @override
    def runs_engines(self) -> bool:
        return True

    @override
    def stopwatch(self) -> Stopwatch:
        """Return the wall clock: nothing is queued on a CPU."""
        from objectives.devices.stopwatch import WallStopwatch

        return WallStopwatch()

    @override
    def memory(self, runner: Runner, workload: Workload) -> Memory:
        from objectives.devices.allocations import Allocations
        from objectives.devices.stopwatch import Unwatched

        peaks: dict[Phase, int] = {}
        resident: list[int | None] = []
        for phase, excerpt in workload.representative_runs().items():
            resident.append(_resident_peak(partial(excerpt.run, runner, Unwatched())))
            watch = Allocations()
            excerpt.run(runner, watch)
            peaks[phase] = watch.peaks[phase]
        known = [each for each in resident if each is not None]
        return Memory(peaks, watch.cache, {"resident_peak": float(max(known))} if known else {})

    @override
    def free_memory(self) -> int:
        """Return the bytes that the machine has left, or what the process's limits leave of them."""
        import resource

        import psutil

        heap.trim()  # what was freed is kept, and would not count
        free = int(psutil.virtual_memory().available)
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - _status_bytes("VmSize"))
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - _status_bytes("VmData"))
        return max(0, min([free, *memory_free()]))

    @override
    def peaks(self) -> Peaks:
        return probe("cpu", _effort())

    @override
    def energy(self) -> Iterator[Rapl]:
        return rapl()

    @override
    def conditions(self) -> dict[str, float]:
        return {"load": os.getloadavg()[0]}


def _effort() -> Effort:
    """Return what a probe tries: a block that no cache holds, and the types with a fast matrix kernel here."""
    import torch

    from objectives.packing.capability import cpu_kernels

    block = min(max(256 * MIB, 4 * _cache_bytes()), 1024 * MIB)  # no more: memory may be short
    fast = {torch.bfloat16: cpu_kernels().bf16, torch.int8: cpu_kernels().int8}
    types = [torch.float32, *(dtype for dtype, is_fast in fast.items() if is_fast)]
    return Effort(whole(block), _SHAPES, types)


def _cache_bytes() -> int:
    """Return the bytes of the last-level caches of this process's processors; 0 where Linux does not tell."""
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


def _resident_peak(run: Callable[[], Any]) -> int | None:
    """Return the bytes by which the resident set grows while ``run()`` runs; None where Linux does not let one ask.

    There is no growth where the run fits into pages that the heap could not give back.
    """
    with heap.give_back():
        gc.collect()
        heap.trim()
        resting = _status_bytes("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        except OSError:
            return None
        run()
        return max(0, _status_bytes("VmHWM") - resting)


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")
