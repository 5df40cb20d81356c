"""NVIDIA GPUs: our codes in torch's kernels; weight-only int8 by torchao, 2:4 by torch's sparse tensors.

Small batches wait for launches, of which 8 bits need more: ``cuda_graphs`` is the runtime for them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.devices.counters import Nvml
from objectives.devices.driver import cuda_of_torch, gpus, total_memory
from objectives.devices.peaks import MIB, Effort, Shape, probe, whole
from objectives.errors import Unsupported
from objectives.protocols.optional import Detectable, Plural
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Device
from objectives.settings import FORBID, Natural
from objectives.types import Memory, Phase

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from objectives.models import LoadedModel
    from objectives.packing.codes import Codes
    from objectives.protocols.running import Runner, Stopwatch, Workload
    from objectives.types import Scheme

_SHAPES: tuple[Shape, ...] = ((4096, 4096, 4096), (8192, 4096, 16384))


@settings(frozen=True, kw_only=True, config=FORBID)
class Cuda(Device, Detectable, Plural):
    """An NVIDIA GPU; ``index``: which of those that torch sees."""

    index: Natural = 0
    name: str = "cuda"

    @property
    @override
    def bits(self) -> frozenset[int]:
        return frozenset({16, 8, 4})

    @override
    def absent(self) -> str | None:
        count = gpus()
        if not count:
            return "device: cuda needs an NVIDIA GPU, and the driver gives this process none; use device=cpu"
        if cuda_of_torch() is None:
            return "device: cuda needs a torch that was built with CUDA, and this one was not; use device=cpu"
        if self.index >= count:
            return f"device.index: {count} GPUs found (0 to {count - 1}), got {self.index}"
        return None

    @override
    def total_memory(self) -> int | None:
        """Return the bytes of the GPU's own memory."""
        return total_memory(self.index)

    @override
    def each(self) -> list[dict[str, str]]:
        """Return an environment for every GPU that the driver gives this process."""
        if self.index:
            raise Unsupported(
                f"device.index: every visible GPU is used, got index {self.index}; leave it 0, and say which by "
                f"CUDA_VISIBLE_DEVICES={self.index}"
            )
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else map(str, range(gpus()))
        return [{"CUDA_VISIBLE_DEVICES": name.strip()} for name, _ in zip(names, range(gpus()))]

    @override
    def start(self) -> None:
        """Check that the GPU is there, and make it current."""
        import torch

        if not torch.cuda.is_available():
            raise Unsupported(f"device cuda: torch {torch.__version__} sees no GPU; use device=cpu")
        if self.index >= torch.cuda.device_count():
            raise Unsupported(f"device.index: {torch.cuda.device_count()} GPUs found, got index {self.index}")
        torch.cuda.set_device(self.index)

    @override
    def describe(self) -> dict[str, str]:
        """Return the card and its driver, for the record."""
        import torch

        from objectives.devices.nvidia import driver_version

        driver = driver_version()
        properties = torch.cuda.get_device_properties(self.index)
        return {
            "device": "cuda",
            "device_name": properties.name,
            "device_memory": str(properties.total_memory),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": str(torch.version.cuda),
            **({} if driver is None else {"driver": driver}),
        }

    @override
    def pack(self, linear: nn.Linear, bits: int, codes: Codes | None, scheme: Scheme) -> nn.Module:
        """Make the linear on the GPU."""
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
    @override
    def sparse(self) -> bool:
        """Tell whether tensor cores skip two zeros of four, as they do since compute capability 8.0."""
        import torch

        return torch.cuda.is_available() and torch.cuda.get_device_capability(self.index) >= (8, 0)

    @override
    def pack_sparse(self, linear: nn.Linear) -> nn.Module:
        """Make the linear by cuSPARSELt or CUTLASS, which take outputs in 32s and inputs in 64s."""
        import torch
        from torch import nn
        from torch.sparse import to_sparse_semi_structured

        if linear.out_features % 32 or linear.in_features % 64:
            raise Unsupported(f"2:4 on CUDA needs outputs in 32s and inputs in 64s, got {linear}")
        _to_card_(linear, torch.bfloat16)
        linear.weight = nn.Parameter(to_sparse_semi_structured(linear.weight.detach()), requires_grad=False)
        return linear

    @override
    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        raise Unsupported(f"embeddings: 16 bits on CUDA, got {bits}")

    @override
    def to_device_(self, model: LoadedModel) -> None:
        """Move everything to the GPU."""
        _to_card_(model.module)

    @property
    @override
    def parks(self) -> bool:
        return True

    @property
    @override
    def records_graphs(self) -> bool:
        return True

    @override
    def stopwatch(self) -> Stopwatch:
        from objectives.devices.cuda_watches import EventStopwatch

        return EventStopwatch()

    @override
    def memory(self, runner: Runner, workload: Workload) -> Memory:
        import torch

        from objectives.devices.cuda_watches import AllocatorPeaks
        from objectives.devices.nvidia import process_memory
        from objectives.devices.stopwatch import Unwatched

        peaks: dict[Phase, int] = {}
        reserved = 0
        for phase, excerpt in workload.representative_runs().items():
            excerpt.run(runner, Unwatched())  # what libraries allocate at first use is theirs
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            watch = AllocatorPeaks()
            excerpt.run(runner, watch)
            peaks[phase], reserved = watch.peaks[phase], max(reserved, watch.reserved)
        process = process_memory(self.index)
        extra = {} if process is None else {"process_memory": float(process)}
        return Memory(peaks, watch.cache, {"reserved_peak": float(reserved), **extra})

    @override
    def free_memory(self) -> int:
        """Return the bytes that the driver has left once torch's allocator gave back what it can.

        It cannot give back what recorded passes hold.
        """
        import torch

        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self.index)[0])

    @override
    def peaks(self) -> Peaks:
        import torch

        since = {torch.bfloat16: (8, 0), torch.int8: (7, 5), torch.float8_e4m3fn: (8, 9)}
        capability = torch.cuda.get_device_capability()
        types = [torch.float32, *(dtype for dtype, first in since.items() if capability >= first)]
        block = min(8192 * MIB, torch.cuda.mem_get_info()[0] // 4)  # long enough to read that its launch is nothing
        return probe("cuda", Effort(whole(block), _SHAPES, types), torch.cuda.synchronize)

    @override
    def energy(self) -> tuple[Nvml]:
        return (Nvml(self.index),)

    @override
    def conditions(self) -> dict[str, float]:
        from objectives.devices.nvidia import conditions

        return {"load": os.getloadavg()[0], **conditions(self.index)}


def _to_card_(module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Move ``module`` to the GPU; tensors that modules share stay shared.

    ``module.to`` does so too, but cannot move what has shapes only.
    """
    from torch import nn

    tensors = [*module.parameters(), *module.buffers()]  # held, so that no two get the same id
    moved: dict[int, Tensor] = {}
    for tensor in tensors:
        fresh = tensor.detach().to("cuda", dtype)
        moved[id(tensor)] = nn.Parameter(fresh, False) if isinstance(tensor, nn.Parameter) else fresh
    for part in module.modules():
        members = (part.named_parameters(recurse=False, remove_duplicate=False), part.named_buffers(recurse=False))
        for name, tensor in list(chain(*members)):
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
