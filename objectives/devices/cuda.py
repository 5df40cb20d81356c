"""NVIDIA GPUs through torchao's kernels. Written from the documentation of torch and torchao; NOT RUN YET.

Known to be open: torchao rounds int4 by itself (our clipped codes are not used) and its tiled layout pads the
inputs to a multiple of 1024. Without torchao only 16 bits are offered.

int8 dynamic (W8A8) goes to ``_int_mm`` on tensor cores, int4 weight-only to tinygemm. Both are made for
``torch.compile``; eager speed is what is measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings

from objectives.errors import Unsupported
from objectives.settings import FORBID, Natural

if TYPE_CHECKING:
    from torch import nn

    from objectives.models import LoadedModel
    from objectives.quantization.grid import Codes
    from objectives.types import Scheme


@settings(frozen=True, kw_only=True, config=FORBID)
class Cuda:
    """``index``: which GPU."""

    index: Natural = 0
    name: str = "cuda"

    @property
    def bits(self) -> frozenset[int]:
        """See ``objectives.types.Device``."""
        return frozenset({16, 8, 4} if find_spec("torchao") else {16})

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
        """A linear that stores its weight in ``bits``, by torchao; 16 bits is torch's own."""
        import torch
        from torch import nn

        linear = linear.to("cuda", torch.bfloat16)
        if bits == 16:
            return linear
        if bits == 8 and scheme == "w8a8" and (linear.in_features % 8 or linear.out_features % 8):
            raise Unsupported(f"int8 on CUDA needs widths that are multiples of 8, got {linear}")
        from torchao.quantization import (
            Int4WeightOnlyConfig,
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )

        holder = nn.Sequential(linear)
        if bits == 8 and scheme == "fp8":
            self._to_fp8_(holder)
        elif bits == 8:
            w8a8 = scheme == "w8a8"
            quantize_(holder, Int8DynamicActivationInt8WeightConfig() if w8a8 else Int8WeightOnlyConfig())
        elif codes is not None and codes.inputs is not None:
            raise Unsupported("quantization: no CUDA kernel here scales its inputs, as awq asks; use gptq")
        elif codes is not None:
            group = linear.in_features // codes.scale.shape[1]
            quantize_(holder, Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d"))
        else:
            raise Unsupported(f"no CUDA kernel stores {bits} bits")
        packed: nn.Module = holder[0]
        return packed

    @staticmethod
    def _to_fp8_(holder: nn.Sequential) -> None:
        import torch

        if torch.cuda.get_device_capability() < (8, 9):
            raise Unsupported("quantization.scheme: fp8 needs compute capability 8.9, choose w8a8")
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

        quantize_(holder, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))

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
        linear = linear.to("cuda", torch.bfloat16)
        linear.weight = nn.Parameter(to_sparse_semi_structured(linear.weight.detach()), requires_grad=False)
        return linear

    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        """See ``objectives.types.Device``."""
        raise Unsupported(f"embeddings: 16 bits on CUDA, got {bits}")

    def place_(self, model: LoadedModel) -> None:
        """Move everything to the GPU."""
        model.module.to("cuda")

    def synchronize(self) -> None:
        """Wait for the GPU."""
        import torch

        torch.cuda.synchronize()

    def activation_peak(self, run: Callable[[], Any]) -> int:
        """See ``objectives.types.Device``."""
        import torch

        run()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        resting = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - resting
