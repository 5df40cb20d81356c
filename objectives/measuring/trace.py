"""A phase observer that computes nothing: it counts live bytes and operations of a run on fake tensors.

A dispatch mode sees every operator, and counts the storages that are alive and the operations of every matrix product.
A packed linear that ran before at the same shape is not run again, since all blocks hold the same few.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from objectives.devices.allocations import cache_bytes
from objectives.packing.capability import cpu_kernels
from objectives.packing.embedding import Int8Embedding
from objectives.packing.linear import PackedLinear
from objectives.packing.weighing import copied_bytes, stored_bytes
from objectives.types import Phase


@dataclass(frozen=True)
class Forward:
    """The cost of one pass through a linear.

    ``shape``, ``dtype``: of its output; ``rise``: bytes that it adds at its peak, output included; ``operations``: by
    operand type.
    """

    shape: torch.Size
    dtype: torch.dtype
    rise: int
    operations: Mapping[str, float]


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A phase observer and a dispatch mode: it counts live storages and the operations of products, phase by phase.

    The tensors of the module ``resting`` are no part of the run, nor are views of them. ``peaks``, ``operations``,
    ``read``: of the last lap of each phase. ``operations`` are by the type of what is multiplied. ``read``: bytes of
    the modules that ran, since an encoder rests while its decoder writes, and of the cache.
    """

    def __init__(self, resting: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._resting = {tensor.untyped_storage()._cdata for tensor in (*resting.parameters(), *resting.buffers())}
        self.peaks: dict[Phase, int] = {}
        self.operations: dict[Phase, Mapping[str, float]] = {}
        self.read: dict[Phase, int] = {}
        self.cache = 0
        self._live = self._peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}
        self._counted: dict[str, float] = defaultdict(float)
        self._ran: set[nn.Module] = set()

    def called(self, part: nn.Module) -> None:
        """Note that ``part`` of the model runs."""
        self._ran.add(part)

    def start(self, laps: int) -> None:
        """Start a run: tensors that were made before are no part of it."""
        self._live = self._peak = 0
        self._seen.clear()
        self._ran.clear()
        self._counted = defaultdict(float)

    def end_phase(self, phase: Phase, held: object = None) -> None:
        """Record peak, operations and bytes read of ``phase``, and begin the next."""
        self.peaks[phase], self.operations[phase] = self._peak, dict(self._counted)
        self.cache = cache_bytes(held)
        twice = sum(map(copied_bytes, self._ran))
        self.read[phase] = stored_bytes(self._ran) - twice + self.cache  # at least
        self._peak, self._counted = self._live, defaultdict(float)
        self._ran.clear()

    def record(self, linear: PackedLinear, x: Tensor) -> tuple[Tensor, Forward]:
        """Run ``linear``; return its output, and what it took."""
        peak, counted, before = self._peak, self._counted, self._live
        self._peak, self._counted = before, defaultdict(float)
        output = type(linear).forward(linear, x)
        cost = Forward(output.shape, output.dtype, self._peak - before, dict(self._counted))
        self._peak, self._counted = max(peak, self._peak), counted
        self._count(cost.operations)
        return output, cost

    def replay(self, known: Forward, x: Tensor) -> Tensor:
        """Count a pass that is ``known`` as if a linear had run on ``x`` once more, and return an empty output."""
        self._peak = max(self._peak, self._live + known.rise)
        self._count(known.operations)
        return x.new_empty(known.shape, dtype=known.dtype)

    def _count(self, operations: Mapping[str, float]) -> None:
        for kind, count in operations.items():
            self._counted[kind] += count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, in its parts where it is composed of other operators, and count what it made."""
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # every third call, and it makes nothing
            return func(*args, **kwargs)
        if _is_composite(func):
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        output = func(*args, **kwargs)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        self._peak = max(self._peak, self._live + _copied(func, args))
        kind, count = _operations(func, args, kwargs, output)
        self._counted[kind] += count
        return output

    def _take(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen or key in self._resting or not size:
            return
        self._live += size
        self._peak = max(self._peak, self._live)
        self._seen[key] = weakref.ref(storage, lambda reference: self._release(key, size, reference))

    def _release(self, key: int, size: int, reference: weakref.ref[Any]) -> None:
        if self._seen.get(key) is reference:  # not of a run before
            del self._seen[key]
            self._live -= size


@contextmanager
def tracing(module: nn.Module, trace: Trace, known: dict[Hashable, Forward]) -> Iterator[None]:
    """Let ``trace`` see what ``module`` does meanwhile. ``known``: passes of linears that ran before, added to here."""
    parts = [part for part in module.modules() if next(part.children(), None) is None]
    linears = [part for part in parts if isinstance(part, PackedLinear)]
    read = [
        part for part in parts if not isinstance(part, (nn.Embedding, Int8Embedding))
    ]  # only rows of tables are read
    hooks = [part.register_forward_pre_hook(lambda part, _inputs: trace.called(part)) for part in read]
    for linear in linears:
        linear.forward = partial(_forward, linear, trace, known)  # type: ignore[method-assign]
    try:
        with trace:
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for linear in linears:
            del linear.forward


def _forward(linear: PackedLinear, trace: Trace, known: dict[Hashable, Forward], x: Tensor) -> Tensor:
    stored = tuple((tensor.shape, tensor.dtype) for tensor in (*linear.parameters(), *linear.buffers()))
    key = type(linear), linear.hidden_bytes, stored, x.shape, x.stride(), x.dtype
    if key in known:
        return trace.replay(known[key], x)
    output, known[key] = trace.record(linear, x)
    return output


@cache
def _is_composite(func: Any) -> bool:
    """Return whether an operator runs as several others.

    The dispatcher is asked, not torch's Python decompositions, in which an idle dropout would make a copy.
    """
    if func.namespace != "aten" or func in _WHOLE:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE)


_ATEN = torch.ops.aten
_COMPOSITE = DispatchKey.CompositeImplicitAutograd
_WHOLE = (_ATEN.linear.default, _ATEN.matmul.default)
"""Operators that are not split: their parts would make copies that the kernels do not make."""


def _operations(func: Any, args: Any, kwargs: Any, output: Any) -> tuple[str, float]:
    """Return the type of the operands and the number of operations of a matrix product.

    A multiplication and an addition are two operations. Any other operator has none.
    """
    packet = func.overloadpacket
    if packet in _PRODUCTS:
        first = args[0]
        return str(first.dtype).removeprefix("torch."), 2.0 * output.numel() * first.shape[-1]
    if packet in _ATTENTIONS:
        query, key = args[0], args[1]
        return str(query.dtype).removeprefix("torch."), 4.0 * query.numel() * key.shape[-2]
    if packet in flop_registry:
        kind = next(arg.dtype for arg in args if isinstance(arg, Tensor))
        return str(kind).removeprefix("torch."), float(flop_registry[packet](*args, **kwargs, out_val=output))
    return "float32", 0.0


def _copied(func: Any, args: Any) -> int:
    """Return the bytes of the copies that a kernel makes for itself.

    Attention in bf16 copies keys and values into the order of tiles, where the CPU multiplies tiles and texts are long
    enough (torch's ``FlashAttentionKernel.cpp``).
    """
    if func.overloadpacket is not _ATEN._scaled_dot_product_flash_attention_for_cpu or not cpu_kernels().tiles:
        return 0
    query, key, value = args[:3]
    if query.dtype != torch.bfloat16 or min(query.shape[-2], key.shape[-2]) < TILED:
        return 0
    even = key.shape[-1] + key.shape[-1] % 2
    return int(key.itemsize * (key.numel() // key.shape[-1] * even + value.numel()))


TILED = 64
"""Least number of tokens for which attention works on tiles."""
_PRODUCTS = (
    _ATEN.linear, _ATEN.matmul, _ATEN._int_mm, _ATEN._weight_int4pack_mm_for_cpu, _ATEN._weight_int8pack_mm,
    _ATEN._weight_int4pack_mm,
)  # fmt: skip
_ATTENTIONS = (
    _ATEN._scaled_dot_product_flash_attention_for_cpu, _ATEN._scaled_dot_product_flash_attention,
    _ATEN._scaled_dot_product_efficient_attention, _ATEN._scaled_dot_product_cudnn_attention,
)  # fmt: skip
