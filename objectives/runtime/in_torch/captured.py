"""Passes recorded as CUDA graphs: one launch instead of hundreds, which is what a small batch waits for.

A graph replays the same kernels on the same addresses. So a run's cache stays where it is and is reused, inputs are
copied to where the graph reads them, and what depends on the place in the text is read from tensors on the GPU. One
graph per shape: of the prefill, of a decoding step, of an encoder's pass.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers.cache_utils import StaticCache
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.protocols.running import Device, EndPhase, Workload
from objectives.runtime.in_torch.static_cache import StaticCacheRunner
from objectives.types import ENCODERS, Memory, Phase

Pass = Callable[[Tensor], Tensor]

KEPT = 8
"""Shapes whose graphs and caches stay in memory."""
WARMUPS = 2
"""Passes before recording: libraries set themselves up, Inductor compiles."""


class Recorded:
    """The pass ``run``, recorded for inputs of the shape of ``ids``; ``rewind`` undoes what a pass changed."""

    def __init__(self, run: Pass, ids: Tensor, rewind: Callable[[], None], pool: Any) -> None:
        self._ids = ids.clone()
        make: Any = torch.cuda.Stream  # has no types
        aside = make()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARMUPS):
                run(self._ids)
                rewind()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._out = run(self._ids)

    def __call__(self, ids: Tensor) -> Tensor:
        """Return what ``run`` would return; the next call overwrites it."""
        self._ids.copy_(ids)
        self._graph.replay()
        return self._out


@dataclass
class Shape:
    """Holds what is kept for runs of one shape: the cache of a decoder, and the graph of each phase."""

    cache: StaticCache | None = None
    graphs: dict[Phase, Recorded] = field(default_factory=dict)


@dataclass(eq=False)
class Captured(StaticCacheRunner):
    """Replays passes that it recorded. Padded rows and logits of whole texts are not recorded: they run as they come.

    ``shapes``: what is kept, by rows, tokens of the prompt and of the cache, latest last; ``keeps``: whether the shapes
    stay for the next run; ``pool``: the memory that all graphs share, as they run one after the other.
    """

    shapes: OrderedDict[tuple[int, int, int], Shape] = field(default_factory=OrderedDict)
    keeps: bool = True
    pool: Any = field(default_factory=lambda: torch.cuda.graph_pool_handle())

    def check(self) -> Self:
        """Record a small run, compare it with a plain one, and return self. Raises Unsupported where they differ."""
        if self.head == "causal_lm":
            layers: Sequence[Any] = StaticCache(config=self.module.config, max_cache_len=1).layers
            if any(layer.is_sliding for layer in layers):  # Python counts their place, which is not recorded
                raise Unsupported("caches that slide are not recorded: choose runtime=torch")
        ids = torch.arange(2 * 4, device=self.device).view(2, 4) % self.vocabulary
        try:
            same = self._anew()._agrees(ids)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise Unsupported(f"the passes of this model cannot be recorded: {first}") from error
        if not same:
            raise Unsupported(
                "the recorded passes of this model do not give what plain ones give: choose runtime=torch"
            )
        return self

    def _agrees(self, ids: Tensor) -> bool:
        plain = StaticCacheRunner(self.model, self.forward)
        with torch.inference_mode():
            if self.head in ENCODERS:
                return torch.allclose(self.encode(ids), plain.encode(ids), rtol=0.02, atol=0.02)
            recorded, expected = ids.new_empty(len(ids), 4), ids.new_empty(len(ids), 4)
            self.generate(ids, recorded)
            plain.generate(ids, expected)
            return torch.equal(recorded, expected)

    def _anew(self) -> Captured:
        """Return the same runner without its graphs, which keeps nothing from run to run."""
        return replace(self, shapes=OrderedDict(), keeps=False, pool=torch.cuda.graph_pool_handle())

    @override
    def encode(self, ids: Tensor, mask: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """Return the answer of ``Runner.encode``, which the next pass overwrites."""
        if mask is not None or types is not None:
            return super().encode(ids, mask, types)
        rows, tokens = ids.shape
        graphs = self._shape(rows, tokens, tokens).graphs
        if "encode" not in graphs:
            graphs["encode"] = Recorded(super().encode, ids, _nothing, self.pool)
        hidden = graphs["encode"](ids)
        self._forget()
        return hidden

    @override
    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        super().generate(ids, out, mask, end_phase)
        self._forget()

    @override
    def _pass(self, ids: Tensor, cache: Any, mask: Tensor | None, seen: Tensor | None = None) -> tuple[Tensor, Any]:
        if mask is not None or not self.room:
            return super()._pass(ids, cache, mask, seen)
        shape = self._shape(len(ids), self.prompt, self.room)
        phase: Phase = "prefill" if cache is None else "decode"
        if phase not in shape.graphs:
            shape.graphs[phase] = self._record(ids, phase, shape)
        return shape.graphs[phase](ids), shape.cache

    def _record(self, ids: Tensor, phase: Phase, shape: Shape) -> Recorded:
        cache = shape.cache = shape.cache or StaticCache(config=self.module.config, max_cache_len=self.room)

        def begin(inputs: Tensor) -> Tensor:
            torch._foreach_zero_(_lengths(cache))  # what lies further on is masked, and overwritten in time
            return self._write(inputs, cache)

        def step(inputs: Tensor) -> Tensor:
            return self._write(inputs, cache)

        def rewind() -> None:
            torch._foreach_sub_(_lengths(cache), ids.shape[1])

        return Recorded(begin if phase == "prefill" else step, ids, rewind, self.pool)

    def _shape(self, rows: int, prompt: int, room: int) -> Shape:
        shape = self.shapes.pop((rows, prompt, room), None) or Shape()
        self.shapes[rows, prompt, room] = shape
        while len(self.shapes) > KEPT:
            self.shapes.popitem(last=False)
        return shape

    def _forget(self) -> None:
        if not self.keeps:
            self._drop()

    def _drop(self) -> None:
        self.shapes.clear()
        self.pool = torch.cuda.graph_pool_handle()  # a pool ends with its last graph

    @override
    def memory(self, workload: Workload, device: Device) -> Memory:
        """Return what a run adds. It records anew, so that caches and what graphs keep are counted."""
        return super(Captured, self._anew()).memory(workload, device)


def _lengths(cache: StaticCache) -> list[Tensor]:
    """Return, by layer, the tensor that tells how many tokens it holds."""
    layers: Sequence[Any] = cache.layers  # of several classes; not all of them have it
    return [layer.cumulative_length for layer in layers]


def _nothing() -> None:
    """Leave all as it is: an encoder keeps nothing to rewind."""
