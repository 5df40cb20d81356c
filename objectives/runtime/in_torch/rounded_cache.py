"""A cache of transformers whose keys and values are rounded to 8 or 4 bits as they enter, and kept so.

Rounding goes by token, so what a token wrote never changes: 8 bits have one scale for each head, 4 bits one for every
32 channels of it. A pass attends to rounded keys and values, its own tokens' included; so a text is scored alike,
read at once or token by token. They are widened for one layer at a time, and no wide copy outlives its layer.

At 4 bits the channels of a head are rotated before they are rounded, and back when they are widened. Keys have a few
channels much larger than the others; a Hadamard matrix spreads these over all, so that they no longer set the steps of
their neighbours. It halves what 4 bits cost (Ashkboos et al., QuaRot, https://arxiv.org/abs/2404.00456). As in
llama.cpp, the scale has the sign of the largest value, which is then met exactly by the code -8.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from typing_extensions import override

from objectives.errors import Unsupported

GROUP = 32
"""Channels of a head that share a scale at 4 bits; all of them where they are no multiple of it."""

Rounded = tuple[Tensor, Tensor]
"""Codes [rows, heads, tokens, channels], two in a byte at 4 bits, and their scales [rows, heads, tokens, groups]."""


def rounded(states: Tensor, bits: int) -> Rounded:
    """Round ``states`` [rows, heads, tokens, channels] to ``bits``, 8 or 4; scales have the type of the states."""
    wide = _grouped(_rotated(states.float()) if bits == 4 else states.float(), _group(states.shape[-1], bits))
    low, high = wide.aminmax(dim=-1, keepdim=True)
    largest = torch.where(high > -low, high, low) / -8 if bits == 4 else torch.maximum(high, -low) / 127
    scales = largest.to(states.dtype)
    codes = (wide / torch.where(scales == 0, 1, scales).float()).round_()
    codes = codes.clamp_(-8, 7) if bits == 4 else codes.clamp_(-127, 127)
    flat = codes.to(torch.int8).flatten(-2)
    return _packed(flat) if bits == 4 else flat, scales.squeeze(-1)


def widened(kept: Rounded, bits: int) -> Tensor:
    """Return the states that the codes and scales of ``bits`` stand for, in the type of the scales."""
    codes, scales = kept
    plain = (_unpacked(codes) if bits == 4 else codes).to(scales.dtype)
    wide = _grouped(plain, plain.shape[-1] // scales.shape[-1]).mul_(scales.unsqueeze(-1)).flatten(-2)
    return _rotated(wide) if bits == 4 else wide


def _rotated(states: Tensor) -> Tensor:
    """Return ``states`` with the channels of every head rotated; a second time returns them to where they were."""
    matrix = _hadamard(states.shape[-1] & -states.shape[-1]).to(states)
    return (_grouped(states, len(matrix)) @ matrix).flatten(-2)


@cache
def _hadamard(size: int) -> Tensor:
    """Return the orthogonal, symmetric Hadamard matrix of ``size``, a power of two."""
    from scipy import linalg

    signs = linalg.hadamard(size)  # type: ignore[no-untyped-call]
    return torch.tensor(signs, dtype=torch.float32).div(size**0.5)


def _grouped(states: Tensor, size: int) -> Tensor:
    return states.reshape(*states.shape[:-1], -1, size)


def _group(channels: int, bits: int) -> int:
    """Return how many channels share a scale."""
    return GROUP if bits == 4 and channels % GROUP == 0 else channels


def _packed(codes: Tensor) -> Tensor:
    """Return two codes of 4 bits in a byte: those of the first half of the channels below those of the second."""
    low, high = (codes + 8).to(torch.uint8).chunk(2, dim=-1)
    return low | (high << 4)


def _unpacked(codes: Tensor) -> Tensor:
    return torch.cat([codes & 15, codes >> 4], dim=-1).to(torch.int8) - 8


class RoundedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The cache of one layer: ``keys`` and ``values`` are codes, ``scales`` those of either."""

    def __init__(self, bits: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bits = bits
        self.scales: tuple[Tensor, ...] = ()

    @override
    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    @override
    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        held = self._extended(key_states, value_states)
        self._keep(held)
        return self._widened(held)

    def _extended(self, key_states: Tensor, value_states: Tensor) -> list[Tensor]:
        """Round what is new, and return codes and scales of keys and values, held and new."""
        new = [*rounded(key_states, self.bits), *rounded(value_states, self.bits)]
        if self.is_initialized:
            return [torch.cat(pair, dim=-2) for pair in zip(self._held, new, strict=True)]
        self.lazy_initialization(key_states, value_states)
        return new

    @property
    def _held(self) -> list[Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return [self.keys, self.scales[0], self.values, self.scales[1]]

    def _keep(self, held: Sequence[Tensor]) -> None:
        self.keys, key_scales, self.values, value_scales = held
        self.scales = (key_scales, value_scales)

    def _widened(self, held: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return widened((held[0], held[1]), self.bits), widened((held[2], held[3]), self.bits)

    @override
    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            self._keep([one[indices] for one in self._held])

    @override
    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    @override
    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("no runner of ours takes tokens back out of a rounded cache")


class RoundedSlidingLayer(RoundedLayer, DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """The cache of a layer that attends to a window: only what the next token can see is kept."""

    def __init__(self, bits: int, sliding_window: int) -> None:
        DynamicSlidingWindowLayer.__init__(self, sliding_window)
        self.bits, self.scales = bits, ()

    @override
    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        held = self._extended(key_states, value_states)
        self.cumulative_length += key_states.shape[-2]
        self._keep([one[:, :, 1 - self.sliding_window :].contiguous() for one in held])
        return self._widened(held)


def rounded_cache(config: PreTrainedConfig, bits: int) -> DynamicCache:
    """Return an empty cache for a decoder of ``config``. Raises Unsupported where a layer keeps something else."""
    cache = DynamicCache(config=config)
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[place] = RoundedLayer(bits)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[place] = RoundedSlidingLayer(bits, layer.sliding_window)
        else:
            kind = type(layer).__name__
            raise Unsupported(f"kv.bits: a layer of this model keeps a {kind}, which is not rounded: kv.bits=16")
    return cache
