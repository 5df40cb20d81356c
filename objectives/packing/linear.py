"""The one forward pass of all packed linears: the fastest path for the number of rows (:mod:`.paths`).

Weight-only kernels read little memory, so they win at decode (one row per request) and lose up to 3x at prefill, where
a plain GEMM on the unpacked weight wins. Unpacking goes in slices of output rows that stay in cache, so that a large
layer (a vocabulary head) does not need its unpacked copy in memory. Who can spare the memory holds that copy all the
same (:meth:`PackedLinear.copy_`): then many rows cost what they cost in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from objectives.models import LoadedModel
from objectives.packing.blocked import Blocked, fits, has_blocks
from objectives.packing.capability import cpu_kernels
from objectives.packing.path_times import Path, times
from objectives.packing.paths import fastest, known, name_of, settle

SLICE_ELEMENTS = 1 << 20
SLICE_ROWS = 64
WIDENING = frozenset({"unpacked", "widened"})
"""The paths that widen the weight before they multiply."""
COPIED = "copied"
"""The path of a weight that is held in 16 bits too."""


class PackedLinear(nn.Module):
    """Computes ``y = x W^T + b`` with W ``[out_features, in_features]`` stored packed.

    Subclasses give :meth:`kernel` (any number of rows, fast for few) and :meth:`unpack` (a slice of W), and the names
    of all their ``paths``. ``kind``: under which the fastest of them are kept; empty where none is measured.
    """

    kind: ClassVar[str] = ""
    in_features: int
    out_features: int
    bias: nn.Parameter | None
    hidden_bytes: int = 0
    """Bytes of the weight that a kernel keeps outside of tensors."""
    copied_weight: Blocked | None = None
    """W in 16 bits, where it is held a second time."""

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._changes, self._taken = -1, dict[int, str | None]()

    @property
    def kernel_rows(self) -> int:
        """Return the most rows for which :meth:`kernel` is the rule; more are multiplied by the unpacked weight."""
        raise NotImplementedError

    @property
    def packed_paths(self) -> tuple[str, ...]:
        """Return the names of the methods that multiply the packed weight here."""
        return ("kernel", "unpacked")

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the names of the methods that can multiply this weight here: all give the same but for rounding."""
        return self.packed_paths if self.copied_weight is None else (*self.packed_paths, COPIED)

    def rule(self, rows: int) -> str:
        """Return the path for ``rows`` rows where nothing was measured."""
        if rows <= self.kernel_rows:
            return "kernel"
        return "unpacked" if self.copied_weight is None else COPIED

    def path(self, rows: int) -> str:
        """Return the path that ``rows`` rows take."""
        if torch.compiler.is_compiling():  # compilers would compile anew for what is remembered
            return self._fastest(rows) or self.rule(rows)
        if self._changes != known.changes:
            self._changes, self._taken = known.changes, {}
        if rows not in self._taken:
            self._taken[rows] = self._fastest(rows)
        return self._taken[rows] or self.rule(rows)

    def _fastest(self, rows: int) -> str | None:
        return fastest(self._measured, (self.in_features, self.out_features), rows, self.paths)

    @property
    def _measured(self) -> str:
        return self.kind if self.copied_weight is None else f"{self.kind}+16"

    @classmethod
    def sample(cls, weight: Tensor) -> PackedLinear:
        """Return a linear that stores ``weight`` fp32 [out, in], to be timed."""
        raise NotImplementedError

    def settle(self) -> None:
        """Find out which path is fastest for a weight of this size, unless that is known."""
        if self.kind and len(self.paths) > 1:
            settle(self.place, (self.in_features, self.out_features), lambda shape: times(shape, self._sampled))

    @property
    def place(self) -> str:
        """Return the name under which the fastest paths are kept; empty where none is measured."""
        return name_of(self._measured, (self.in_features, self.out_features)) if self.kind else ""

    def _sampled(self, weight: Tensor) -> tuple[dict[str, Path], Callable[[int], str]]:
        linear = self.sample(weight)
        if self.copied_weight is not None:
            linear.copy_()
        return {name: linear.timed(name) for name in linear.paths}, linear.rule

    def timed(self, path: str) -> Path:
        """Return what ``path`` does to rows [m, in], all of its work included."""
        run: Path = getattr(self, path)
        return run

    def kernel(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` [m, in] by the packed weight: [m, out], without bias."""
        raise NotImplementedError

    def repack_(self) -> Self:
        """Prepare for the kernel of this CPU, once the values are in place; returns self."""
        return self

    def copy_(self) -> Self:
        """Hold W a second time, in 16 bits and the order of oneDNN's blocks, where a CPU has such; returns self."""
        can_unpack = self.kind and "unpacked" in self.paths
        if can_unpack and self.copied_weight is None and can_copy() and fits(self.out_features, self.in_features):
            self.copied_weight = Blocked(self.unpack(0, self.out_features, torch.bfloat16).contiguous())
            self.hidden_bytes += self.copied_weight.nbytes
            self._changes = -1
        return self

    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Unpack the rows ``start:stop`` of W, ``[stop - start, in]`` in ``dtype``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [..., in]; the output has the dtype of ``x``."""
        rows = x.reshape(-1, self.in_features)
        if rows.dtype != torch.float32 and not cpu_kernels().bf16:  # T5 casts what its FFN's last linear reads
            rows = rows.float()
        y: Tensor = getattr(self, self.path(rows.shape[0]))(rows)
        if self.bias is not None:
            y = y.add_(self.bias.to(y.dtype))
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def unpacked(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` [m, in] by the unpacked weight: [m, out], without bias."""
        return self._by_slices(rows, self._slice)

    def copied(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` [m, in] by the weight that is held in 16 bits: [m, out], without bias."""
        assert self.copied_weight is not None
        return self.copied_weight.product(rows.to(torch.bfloat16)).to(rows.dtype)

    def _by_slices(self, rows: Tensor, part: Callable[[int, int, torch.dtype], Tensor]) -> Tensor:
        """Multiply ``rows`` by the matrix whose rows ``start:stop`` are ``part(start, stop, dtype)``."""
        step = max(1, SLICE_ELEMENTS // self.in_features // SLICE_ROWS) * SLICE_ROWS
        if step >= self.out_features:
            return rows @ part(0, self.out_features, rows.dtype).t()
        starts = range(0, self.out_features, step)
        stops = (min(start + step, self.out_features) for start in starts)
        if rows.requires_grad:  # filling slices would make autograd copy all of the output for each of them
            parts = [rows @ part(start, stop, rows.dtype).t() for start, stop in zip(starts, stops)]
            return torch.cat(parts, dim=1)
        y = rows.new_empty(rows.shape[0], self.out_features)
        for start, stop in zip(starts, stops):
            y[:, start:stop] = rows @ part(start, stop, rows.dtype).t()
        return y

    def _slice(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Return the slice that :meth:`unpacked` multiplies by; ``start`` is a multiple of ``SLICE_ROWS``."""
        return self.unpack(start, stop, dtype)

    def extra_repr(self) -> str:
        """Describe the shapes for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def can_copy() -> bool:
    """Return whether this CPU multiplies 16 bits by itself, in blocks that are faster than its rows."""
    return cpu_kernels().bf16 and has_blocks()


def places(module: nn.Module) -> set[str]:
    """Return the names under which the fastest paths of all linears of ``module`` are kept."""
    return {part.place for part in module.modules() if isinstance(part, PackedLinear) and part.place}


def copy_linears_(model: LoadedModel) -> None:
    """Hold the packed weights of all blocks a second time, in 16 bits; then find out where that copy is faster."""
    for block in model.blocks():
        for path in block.stack.block_linears:
            linear: nn.Module = block.linear(path)
            if isinstance(linear, PackedLinear):
                linear.copy_()
    settle_paths(model.module)


def holds_copies(model: LoadedModel) -> bool:
    """Return whether any weight of ``model`` is held a second time."""
    return any(getattr(part, "copied_weight", None) is not None for part in model.module.modules())


def settle_paths(module: nn.Module) -> None:
    """Find out which paths are fastest for all linears of ``module``; of one without values nothing is measured."""
    if not any(isinstance(tensor.data, FakeTensor) for tensor in (*module.parameters(), *module.buffers())):
        for part in module.modules():
            if isinstance(part, PackedLinear):
                part.settle()
