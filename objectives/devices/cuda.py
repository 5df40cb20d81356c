"""NVIDIA GPUs: our codes in torch's kernels; weight-only int8 by torchao, 2:4 by torch's sparse tensors.

Small batches wait for launches, of which 8 bits need more: ``cuda_graphs`` is the runtime for them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from itertools import chain, pairwise
from time import process_time
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings

from objectives.devices.driver import cuda_of_torch, gpus, total_memory
from objectives.errors import Unsupported
from objectives.settings import FORBID, Natural
from objectives.types import Memory, Phase, Timing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from objectives.models import LoadedModel
    from objectives.quantization.grid import Codes
    from objectives.types import Runner, Scheme, Stopwatch, Workload


@settings(frozen=True, kw_only=True, config=FORBID)
class Cuda:
    """``index``: which GPU."""

    index: Natural = 0
    name: str = "cuda"

    @property
    def bits(self) -> frozenset[int]:
        """See ``objectives.types.Device``."""
        return frozenset({16, 8, 4})

    def absent(self) -> str | None:
        """See ``objectives.types.Device``."""
        found = gpus()
        if not found:
            return "device: cuda needs an NVIDIA GPU, and the driver gives this process none; use device=cpu"
        if cuda_of_torch() is None:
            return "device: cuda needs a torch that was built with CUDA, and this one was not; use device=cpu"
        if self.index >= found:
            return f"device.index: {found} GPUs found (0 to {found - 1}), got {self.index}"
        return None

    def total_memory(self) -> int | None:
        """See ``objectives.types.Device``."""
        return total_memory(self.index)

    def start(self) -> None:
        """Check that the GPU is there, and make it current."""
        import torch

        if not torch.cuda.is_available():
            raise Unsupported(f"device cuda: torch {torch.__version__} sees no GPU; use device=cpu")
        if self.index >= torch.cuda.device_count():
            raise Unsupported(f"device.index: {torch.cuda.device_count()} GPUs found, got index {self.index}")
        torch.cuda.set_device(self.index)

    def describe(self) -> dict[str, str]:
        """Hardware, for the record."""
        import torch

        properties = torch.cuda.get_device_properties(self.index)
        return {
            "device": "cuda",
            "device_name": properties.name,
            "device_memory": str(properties.total_memory),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": str(torch.version.cuda),
        }

    def pack(self, linear: nn.Linear, bits: int, codes: Codes | None, scheme: Scheme) -> nn.Module:
        """See ``objectives.types.Device``; on the GPU."""
        import torch

        if bits == 4 and codes is not None:
            from objectives.packing.tinygemm import TinygemmLinear

            bias = None if linear.bias is None else linear.bias.detach().to("cuda", torch.bfloat16)
            return TinygemmLinear(codes, bias)
        _to_card_(linear, torch.bfloat16)
        if bits == 16:
            return linear
        if bits != 8:
            raise Unsupported(f"no CUDA kernel stores {bits} bits")
        if scheme == "weight_only":
            return _weight_only(linear)
        if scheme == "w8a8":
            from objectives.packing.int_mm import IntMmLinear

            return IntMmLinear(linear.weight.detach(), linear.bias)
        if torch.cuda.get_device_capability(self.index) < (8, 9):
            raise Unsupported("quantization.scheme: fp8 needs compute capability 8.9, choose w8a8")
        from objectives.packing.fp8 import Fp8Linear

        return Fp8Linear(linear.weight.detach(), linear.bias)

    @property
    def sparse(self) -> bool:
        """See ``objectives.types.Device``: tensor cores skip two zeros of four since compute capability 8.0."""
        import torch

        return torch.cuda.is_available() and torch.cuda.get_device_capability(self.index) >= (8, 0)

    def pack_sparse(self, linear: nn.Linear) -> nn.Module:
        """See ``objectives.types.Device``; by cuSPARSELt or CUTLASS, which take rows in 32s and inputs in 64s."""
        import torch
        from torch import nn
        from torch.sparse import to_sparse_semi_structured

        if linear.out_features % 32 or linear.in_features % 64:
            raise Unsupported(f"2:4 on CUDA needs outputs in 32s and inputs in 64s, got {linear}")
        _to_card_(linear, torch.bfloat16)
        linear.weight = nn.Parameter(to_sparse_semi_structured(linear.weight.detach()), requires_grad=False)
        return linear

    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        """See ``objectives.types.Device``."""
        raise Unsupported(f"embeddings: 16 bits on CUDA, got {bits}")

    def place_(self, model: LoadedModel) -> None:
        """Move everything to the GPU."""
        _to_card_(model.module)

    def stopwatch(self) -> Stopwatch:
        """See ``objectives.types.Device``."""
        return EventStopwatch()

    def memory(self, runner: Runner, workload: Workload) -> Memory:
        """See ``objectives.types.Device``."""
        import torch

        from objectives.devices.nvidia import process_memory
        from objectives.measuring.stopwatch import Unwatched

        peaks: dict[Phase, int] = {}
        reserved = 0
        for phase, excerpt in workload.excerpts().items():
            excerpt.run(runner, Unwatched())  # what libraries allocate at first use is theirs
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            watch = AllocatorPeaks()
            excerpt.run(runner, watch)
            peaks[phase], reserved = watch.peaks[phase], max(reserved, watch.reserved)
        process = process_memory(self.index)
        extra = {} if process is None else {"process_memory": float(process)}
        return Memory(peaks, watch.cache, {"reserved_peak": float(reserved), **extra})

    def free_memory(self) -> int:
        """See ``objectives.types.Device``: what the driver has left once torch's allocator gave back what it can; what
        recorded passes hold it cannot.
        """
        import torch

        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self.index)[0])

    def conditions(self) -> dict[str, float]:
        """See ``objectives.types.Device``."""
        from objectives.devices.nvidia import conditions

        return {"load": os.getloadavg()[0], **conditions(self.index)}


def _to_card_(module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """As ``module.to``, which cannot move what has shapes only; tensors that modules share stay shared."""
    from torch import nn

    there = [*module.parameters(), *module.buffers()]  # held, so that none takes the number of another
    moved: dict[int, Tensor] = {}
    for tensor in there:
        fresh = tensor.detach().to("cuda", dtype)
        moved[id(tensor)] = nn.Parameter(fresh, False) if isinstance(tensor, nn.Parameter) else fresh
    for part in module.modules():
        own = (part.named_parameters(recurse=False, remove_duplicate=False), part.named_buffers(recurse=False))
        for name, tensor in list(chain(*own)):
            setattr(part, name, moved[id(tensor)])


def _weight_only(linear: nn.Linear) -> nn.Module:
    from torch import nn

    if find_spec("torchao") is None:
        raise Unsupported("quantization.scheme: weight_only on CUDA needs torchao (paretune[cuda]), or choose w8a8")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    holder = nn.Sequential(linear)
    quantize_(holder, Int8WeightOnlyConfig())
    packed: nn.Module = holder[0]
    return packed


class EventStopwatch:
    """Times phases on the GPU's own clock, between events in its stream; nothing is waited for before the end."""

    def start(self, laps: int) -> None:
        """See ``objectives.types.Watch``."""
        import torch

        torch.cuda.synchronize()
        self._phases: list[Phase] = []
        self._began = process_time()
        self._events = [self._stamp()]

    @staticmethod
    def _stamp() -> Any:
        import torch

        make: Any = torch.cuda.Event  # has no types
        event = make(enable_timing=True)
        event.record()
        return event

    def lap(self, phase: Phase, held: object = None) -> None:
        """See ``objectives.types.Watch``."""
        self._events.append(self._stamp())
        self._phases.append(phase)

    def timing(self, items: int) -> Timing:
        """See ``objectives.types.Stopwatch``."""
        from objectives.measuring.stopwatch import timing_of

        self._events[-1].synchronize()
        cpu = process_time() - self._began
        laps = [earlier.elapsed_time(later) / 1e3 for earlier, later in pairwise(self._events)]
        return timing_of(self._phases, laps, cpu, items)


class AllocatorPeaks:
    """What the caching allocator handed out, phase by phase, and the most it took from the driver (``reserved``)."""

    def __init__(self) -> None:
        self.peaks: dict[Phase, int] = {}
        self.reserved = self.cache = 0

    def start(self, laps: int) -> None:
        """See ``objectives.types.Watch``."""
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._resting = torch.cuda.memory_allocated()

    def lap(self, phase: Phase, held: object = None) -> None:
        """See ``objectives.types.Watch``."""
        import torch

        from objectives.measuring.allocations import cache_bytes

        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - self._resting
        self.peaks[phase] = max(peak, self.peaks.get(phase, 0))
        self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        self.cache = cache_bytes(held)
        torch.cuda.reset_peak_memory_stats()
