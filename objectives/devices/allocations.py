"""Counts the live bytes of torch's CPU allocator during one run, phase by phase.

The profiler reports every allocation and release, those of temporaries inside kernels too; their running sum repeats
to the byte whatever the process did before. The kernel's high-water mark does not: freed blocks stay in the heap and
are used again unseen, and what ran before decides how many there are.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache
from typing_extensions import override

from objectives.models.padded import Padded
from objectives.models.sourced import Sourced
from objectives.protocols.running import PhaseObserver
from objectives.types import Phase

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when the profiler first starts: it would report every start


class Allocations(PhaseObserver):
    """Counts what one run allocates.

    ``peaks``: by phase, the most bytes above the start; ``cache``: bytes of the cache that was held at last. Every lap
    is a profile of its own, so that phases are told apart; blocks that outlive one are known to the next.
    """

    def __init__(self) -> None:
        self.peaks: dict[Phase, int] = {}
        self.cache = 0

    @override
    def start(self, laps: int) -> None:
        self._laps, self._live = laps, 0
        gc.collect()
        self._watch()

    @override
    def end_phase(self, phase: Phase, held: object = None) -> None:
        self._profile.__exit__(None, None, None)
        self.cache = cache_bytes(held)
        peak, self._live = _peak(_changes(self._profile), self._live)
        self.peaks[phase] = max(peak, self.peaks.get(phase, 0))
        self._laps -= 1
        if self._laps:
            self._watch()

    def _watch(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        profile: Any = torch.profiler.profile(activities=activities, profile_memory=True)  # has no types
        profile.__enter__()
        self._profile = profile


def _changes(profile: Any) -> list[int]:
    """Return the bytes that were taken (positive) and given back (negative), in the order of time."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def _peak(changes: list[int], live: int) -> tuple[int, int]:
    """Return the maximum and the last value of the running sum of ``changes`` that starts at ``live``."""
    peak = live
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak, live


def cache_bytes(held: object) -> int:
    """Return the bytes of the keys and values in a cache of transformers; 0 where nothing is held."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in _tensors(held)}
    return sum(storages.values())


def _tensors(held: object) -> Iterator[torch.Tensor]:
    if isinstance(held, (Padded, Sourced)):
        held = held.cache
    if isinstance(held, EncoderDecoderCache):
        yield from (*_tensors(held.self_attention_cache), *_tensors(held.cross_attention_cache))
        return
    for layer in getattr(held, "layers", None) or ():
        held_by_layer = (layer.keys, layer.values, *getattr(layer, "scales", ()))  # scales: where they are rounded
        yield from (tensor for tensor in held_by_layer if tensor is not None)
