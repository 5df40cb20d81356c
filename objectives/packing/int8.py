"""8 bits: int8 weights per output channel; W8A8 rounds the activations to int8 per token too, weight-only does not.

W8A8 multiplies integers: by ``_int_mm`` on CPUs with int8 instructions, by fbgemm on others where torch has it, by
a fp32 GEMM elsewhere. fbgemm keeps the weight in its own layout, outside of tensors and in whole blocks of 512 inputs,
hence :meth:`Int8Linear.repack_`; inputs that fill no block stay in a tensor. Without VNNI it adds two products in 16
bits, which saturate at 255 * 129: the scale of a channel is therefore chosen so that no two neighbours add up to more
than 128. That makes it a third coarser than the largest weight alone would ask for, costs little (docs/log.md), and
the integers are the same on every CPU.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from typing_extensions import override

from objectives.packing.capability import cpu_kernels
from objectives.packing.int8_rounding import round_in_pairs, round_rows, round_symmetric
from objectives.packing.linear import COPIED, PackedLinear
from objectives.packing.path_times import Path

_PRODUCT = "linear_with_input_q_dq_qweight_dq_output_fp32"
_BLOCK_INPUTS = 512
_WORTH_A_CALL = 1 << 18
_FEW = 8
_CENTRE = 128
"""Zero point of fbgemm's activations, which are unsigned."""


@cache
def _ones(size: int) -> Tensor:
    """Return scales of one for aten's kernel: the output is scaled instead, in fp32."""
    return torch.ones(size, dtype=torch.bfloat16)


def _int8_weight_product(rows: Tensor, codes: Tensor) -> Tensor:
    """Multiply ``rows`` in bf16 (which holds every int8 exactly) by the integers, bf16; fast for a few rows."""
    product: Tensor = torch.ops.aten._weight_int8pack_mm(rows.to(torch.bfloat16), codes, _ones(codes.shape[0]))
    return product


class Int8WeightLinear(PackedLinear):
    """A linear of int8 weights and unrounded activations. ``codes``: int8 [out, in]; ``scale``: fp32 [out].

    A few rows read the integers, many rows a widened slice: that of the integers, or of the weight.
    """

    kind = "int8_weight_only"
    codes: Tensor
    scale: Tensor
    weight = None  # T5 asks for the dtype of its FFN's weight, where that is a tensor

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__(codes.shape[1], codes.shape[0], bias)
        self.register_buffer("codes", codes.contiguous())
        self.register_buffer("scale", scale)

    @property
    @override
    def kernel_rows(self) -> int:
        """Return 0 where in_features is no multiple of 32: aten's kernel reads past the end there and crashes.

        Else the number of rows up to which the kernel is faster.
        """
        if self.in_features % 32:
            return 0
        # Where widening W once and a GEMM cost as much; to widen a small one is mostly the cost of the calls.
        return 20 + (1 << 20) // (self.in_features * self.out_features) if cpu_kernels().bf16 else _FEW

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Round ``weight`` [out, in] to the nearest int8 per output channel."""
        codes, scale = round_symmetric(weight)
        return cls(codes.to(torch.int8), scale.squeeze(1), bias)

    @classmethod
    @override
    def sample(cls, weight: Tensor) -> Int8WeightLinear:
        return cls.from_weight(weight, None)

    @property
    @override
    def packed_paths(self) -> tuple[str, ...]:
        return ("widened", "unpacked") if self.in_features % 32 else ("kernel", "widened", "unpacked")

    def widened(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` by the integers in the type of ``rows``, which holds them exactly, and scale."""
        sums = self._by_slices(rows, lambda start, stop, dtype: self.codes[start:stop].to(dtype))
        return sums.float().mul_(self.scale).to(rows.dtype)

    @override
    def kernel(self, rows: Tensor) -> Tensor:
        """Multiply ``rows``, rounded to bf16, by the integers, and scale."""
        return _int8_weight_product(rows, self.codes).float().mul_(self.scale).to(rows.dtype)

    @override
    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Widen a slice by way of fp32: CPUs widen integers to it ten times as fast as to bf16."""
        return self.codes[start:stop].float().mul_(self.scale[start:stop, None]).to(dtype)


class Int8Linear(PackedLinear):
    """A linear of int8 weights and activations (W8A8). ``scale``: fp32 [out].

    The integers are those of :func:`round_in_pairs`.
    """

    kind = "int8"
    scale: Tensor
    _codes_of: ClassVar[dict[str, torch.dtype]] = {"integers": torch.int8}
    """The type of the rounded activations, by path, where that is not fp32."""
    _open: Tensor
    """Integers [out, last inputs] that fbgemm does not hold."""
    weight = None

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__(codes.shape[1], codes.shape[0], bias)
        self._fbgemm: Any = None
        self.register_buffer("_open", codes.contiguous(), persistent=False)
        self.register_buffer("scale", scale)

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Round ``weight`` [out, in] to the nearest int8 per output channel."""
        codes, scale = round_in_pairs(weight)
        return cls(codes.to(torch.int8), scale.squeeze(1), bias)

    @classmethod
    @override
    def sample(cls, weight: Tensor) -> Int8Linear:
        return cls.from_weight(weight, None)

    @property
    @override
    def packed_paths(self) -> tuple[str, ...]:
        if self._fbgemm is not None:
            return ("held",)
        if self.copied_weight is not None:
            return ("widened", "unpacked") if self.in_features % 32 else ("kernel", "widened", "unpacked")
        by_integers = ("integers",) if cpu_kernels().int8 and self.in_features > 1 else ()
        few = () if self.in_features % 32 else ("kernel",)
        return (*by_integers, *few, "widened", "unpacked")

    @override
    def rule(self, rows: int) -> str:
        if self._fbgemm is not None:
            return "held"
        if self.copied_weight is not None:
            return "kernel" if rows < _FEW and self.in_features % 32 == 0 else COPIED
        if cpu_kernels().int8 and self.in_features > 1:  # with one input torch returns nonsense
            return "integers"
        return "kernel" if rows <= _FEW and self.in_features % 32 == 0 else "unpacked"

    @property
    def codes(self) -> Tensor:
        """Return the integers, int8 [out, in]."""
        if self._fbgemm is None:
            return self._open
        held: Tensor = torch.ops.quantized.linear_unpack(self._fbgemm)[0].int_repr()
        return torch.cat([held, self._open], dim=1)

    @override
    def repack_(self) -> Self:
        """Move the weight into the layout that this CPU multiplies fastest; returns self."""
        held = _inputs_for_fbgemm(self.in_features, self.out_features)
        if self._fbgemm is None and held and not cpu_kernels().int8 and _fbgemm_is_exact():
            self._fbgemm = _prepacked(self._open[:, :held], self.scale)  # for a fake weight: the number of its outputs
            self._open = self._open[:, held:].clone()
            padded = -(-held // _BLOCK_INPUTS) * _BLOCK_INPUTS * -(-self.out_features // 16) * 16
            self.hidden_bytes = padded + 12 * self.out_features  # a scale, a sum and a zero per channel
            self._changes = -1
        return self

    @override
    def copy_(self) -> Self:
        return self if self._fbgemm is not None else super().copy_()

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Round the activations per token, multiply the integers, scale back.

        With a copy of W no number of rows rounds them: a prompt and a step have to be one model.
        """
        if self.copied_weight is not None:
            return super().forward(x)
        rows = x.reshape(-1, self.in_features)
        y = self._rounded(self.path(rows.shape[0]), rows)
        if self.bias is not None:
            y = y.add_(self.bias)
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _rounded(self, path: str, rows: Tensor) -> Tensor:
        codes, scale = round_rows(rows, self._codes_of.get(path, torch.float32))
        product: Tensor = getattr(self, path)(codes)
        return product.mul_(scale)

    @override
    def timed(self, path: str) -> Path:
        """Return what ``path`` does, with the rounding of activations that it asks for."""
        if self.copied_weight is not None:
            return super().timed(path)
        return lambda rows: self._rounded(path, rows).to(rows.dtype)

    # The paths multiply ``rows`` [m, in], whole numbers unless there is a copy, by the scaled weight: fp32 [m, out].

    def integers(self, rows: Tensor) -> Tensor:
        """Multiply integers by integers."""
        return torch._int_mm(rows.to(torch.int8), self._open.t()).float().mul_(self.scale)

    @override
    def kernel(self, rows: Tensor) -> Tensor:
        """Multiply by the kernel for weights alone; bf16 holds the integers of the rows as well."""
        return _int8_weight_product(rows, self._open).float().mul_(self.scale)

    def widened(self, rows: Tensor) -> Tensor:
        """Multiply the integers in the CPU's compute dtype, which holds them exactly; sums are fp32 until the end."""
        narrow = rows.to(cpu_kernels().compute_dtype)
        sums = self._by_slices(narrow, lambda start, stop, dtype: self._open[start:stop].to(dtype))
        return sums.float().mul_(self.scale)

    def held(self, rows: Tensor) -> Tensor:
        """Multiply by fbgemm, and by the inputs that it does not hold."""
        inside = self.in_features - self._open.shape[1]
        y = _fbgemm_product(rows[:, :inside], self._fbgemm)
        if inside == self.in_features:
            return y
        rest = rows[:, inside:]
        if rest.shape[0] <= _FEW and rest.shape[1] % 32 == 0:
            return y.add_(self.kernel(rest))
        return y.add_(rest @ self._open.float().mul_(self.scale[:, None]).t())

    @override
    def unpack(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.codes[start:stop].float().mul_(self.scale[start:stop, None]).to(dtype)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "codes"] = self.codes


def _inputs_for_fbgemm(inputs: int, outputs: int) -> int:
    """Return how many of the first inputs fbgemm shall hold; it fills up its last block with zeros, by a tenth at most.

    0 for a small weight: there a call costs more than the multiplication.
    """
    if inputs * outputs < _WORTH_A_CALL:
        return 0
    return inputs if -inputs % _BLOCK_INPUTS <= inputs // 10 else inputs // _BLOCK_INPUTS * _BLOCK_INPUTS


def _prepacked(codes: Tensor, scale: Tensor) -> Any:
    if isinstance(codes, FakeTensor):
        return len(scale)
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch means to drop these; without them we take another path
        weight = torch._make_per_channel_quantized_tensor(codes, scale.double(), zeros, 0)
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        return torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = engine


def _fbgemm_product(rows: Tensor, packed: Any) -> Tensor:
    if isinstance(packed, int):
        return rows.new_empty(len(rows), packed)
    product: Tensor = getattr(torch.ops.quantized, _PRODUCT)(rows, 1.0, _CENTRE, packed)
    return product


@cache
def _fbgemm_is_exact() -> bool:
    """Return whether fbgemm is there and multiplies integers exactly, tried where its 16-bit sums are largest."""
    if "fbgemm" not in torch.backends.quantized.supported_engines or not hasattr(torch.ops.quantized, _PRODUCT):
        return False
    generator = torch.Generator().manual_seed(0)
    codes, _ = round_in_pairs(torch.randn(64, 96, generator=generator))
    rows = torch.randint(-127, 128, (32, 96), generator=generator).float()
    rows[0], rows[1] = 127, -127
    found = _fbgemm_product(rows, _prepacked(codes.to(torch.int8), torch.ones(64)))
    return torch.equal(found, rows @ codes.t())
