"""Makes a runner of an engine: torch tensors outside, numpy inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from objectives.devices.stopwatch import Unwatched
from objectives.errors import Unsupported
from objectives.protocols.candidate import BuildContext
from objectives.protocols.encoder_decoder import Opening, ReadsSources
from objectives.protocols.running import Device, EndPhase, Runner, SelectsRows, Workload
from objectives.protocols.serving import Capacity, HostsFolders, Loading, Server, Serves
from objectives.runtime.engines.folder import (
    ENGINES,
    DecoderEngine,
    EncoderDecoderEngine,
    EncoderEngine,
    Engine,
    Facts,
    Floats,
    Generating,
    Selecting,
    Weighed,
    disk_bytes,
    open_engine,
    runtime_of,
)
from objectives.runtime.engines.likeness import require_alike, write_expected
from objectives.runtime.engines.masks import causal
from objectives.runtime.engines.probe import Resident, resident
from objectives.runtime.in_torch import greedy
from objectives.runtime.in_torch.seq2seq import shifted
from objectives.runtime.servers.kept import KeptServers, memory_under_load
from objectives.settings import class_path
from objectives.types import Head, Memory, Note


@dataclass(frozen=True)
class EngineCache:
    """The cache of an engine between two passes.

    ``state``: the engine's own cache; ``length``: tokens in it; ``seen`` [rows, tokens]: which tokens count, or None
    where all do.
    """

    state: Any
    length: int
    seen: np.ndarray[Any, np.dtype[np.bool_]] | None


@dataclass
class EngineRunner(Runner, SelectsRows, ReadsSources, Serves):
    """Runs the engine whose files are in ``folder``.

    ``tokenizer``: None where nobody reads texts; ``allowed``: which classes may open the files, see
    :func:`objectives.runtime.engines.folder.made`.
    """

    folder: Path
    facts: Facts
    engine: Engine
    threads: int
    tokenizer: Any = None
    allowed: Sequence[str] = (ENGINES,)
    servers: KeptServers = field(default_factory=KeptServers, compare=False)

    @classmethod
    def made(
        cls, context: BuildContext, runtime: object, write: Callable[[Path], None], isolated: bool = False
    ) -> EngineRunner:
        """Open the engine of ``runtime`` that ``write`` makes from ``context``, or that was made earlier.

        ``isolated``: it runs in a process of its own, and need not be tried in one before.

        Raises Unsupported where it does not run or computes something else than the model, and MemoryError.
        """

        def written(new: Path) -> None:
            from objectives.runtime.in_torch.runner import TorchRunner  # brings transformers, which no engine needs

            write(new)
            write_expected(new, TorchRunner(context.model()))

        folder = context.engine(written)
        if not isolated:
            context.admit(folder)
        runner = cls.open(folder, context.tokenizer, context.threads, (class_path(runtime),))
        context.release(runner, folder)
        require_alike(runner, folder, type(runtime).__name__)
        return runner

    @classmethod
    def open(cls, folder: Path, tokenizer: Any, threads: int, allowed: Sequence[str] = (ENGINES,)) -> EngineRunner:
        """Open the engine of ``folder``. Raises ObjectiveError."""
        engine, facts = open_engine(folder, threads, allowed)
        return cls(folder, facts, engine, threads, tokenizer, allowed)

    @property
    @override
    def head(self) -> Head:
        return self.facts.head

    @property
    @override
    def vocabulary(self) -> int:
        return self.facts.vocabulary

    @property
    @override
    def labels(self) -> Sequence[str]:
        return tuple(self.facts.labels)

    @property
    @override
    def end_tokens(self) -> Sequence[int]:
        return tuple(self.facts.end_tokens)

    @property
    @override
    def stored_bytes(self) -> int:
        return self.facts.weight_bytes

    @property
    @override
    def notes(self) -> Sequence[Note]:
        return self.facts.notes

    @property
    @override
    def simulated(self) -> bool:
        return False

    @property
    @override
    def predicted_loss(self) -> float:
        return math.nan if self.facts.predicted_loss is None else self.facts.predicted_loss

    @property
    @override
    def device(self) -> torch.device:
        return torch.device("cpu")

    @override
    def encode(self, ids: Tensor, mask: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        counts = None if mask is None or bool(mask.all()) else mask.bool().numpy()
        typed = () if types is None else (types.long().numpy(),)
        return torch.from_numpy(cast("EncoderEngine", self.engine).encode(ids.long().numpy(), counts, *typed))

    @cached_property
    def _decoder(self) -> DecoderEngine:
        return cast("DecoderEngine", self.engine)

    @override
    def logits(self, ids: Tensor, first: int = 0) -> Tensor:
        rows, tokens = ids.shape
        if self.head == "seq2seq":
            state, ids = self._translator.begin(self.read(ids)), shifted(ids, self.opening.tokens[0])
        else:
            state = self._decoder.start(rows)
        return torch.from_numpy(self._pass(ids, EngineCache(state, 0, None), np.arange(first, tokens))[0])

    @cached_property
    def _translator(self) -> EncoderDecoderEngine:
        return cast("EncoderDecoderEngine", self.engine)

    @property
    @override
    def opening(self) -> Opening:
        return self.facts.opening

    @override
    def read(self, ids: Tensor, mask: Tensor | None = None) -> Any:
        counts = None if mask is None or bool(mask.all()) else mask.bool().numpy()
        return self._translator.read(ids.long().numpy(), counts)

    @override
    def begin(self, sources: Any, ids: Tensor) -> tuple[Tensor, EngineCache]:
        return self._last(ids, EngineCache(self._translator.begin(sources), 0, None))

    @override
    def select(self, cache: EngineCache, rows: Sequence[int]) -> EngineCache | None:
        if not isinstance(self.engine, Selecting):
            return None
        seen = None if cache.seen is None else cache.seen[list(rows)]
        return EngineCache(self.engine.select(cache.state, rows), cache.length, seen)

    @override
    def prefill(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, EngineCache]:
        if self.head == "seq2seq":
            return self.begin(self.read(ids, mask), torch.tensor([self.opening.tokens] * len(ids)))
        seen = None if mask is None or bool(mask.all()) else mask.bool().numpy()
        return self._last(ids, EngineCache(self._decoder.start(len(ids)), 0, seen))

    @override
    def step(self, ids: Tensor, cache: EngineCache) -> tuple[Tensor, EngineCache]:
        seen = cache.seen
        if seen is not None:
            seen = np.concatenate([seen, np.ones(ids.shape, np.bool_)], axis=1)
        return self._last(ids, EngineCache(cache.state, cache.length, seen))

    def _last(self, ids: Tensor, cache: EngineCache) -> tuple[Tensor, EngineCache]:
        logits, state = self._pass(ids, cache, np.array([ids.shape[1] - 1]))
        return torch.from_numpy(logits[:, 0]), EngineCache(state, cache.length + ids.shape[1], cache.seen)

    def _pass(self, ids: Tensor, cache: EngineCache, wanted: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Floats, Any]:
        rows, tokens = ids.shape
        total = cache.length + tokens
        if cache.seen is None:
            places = np.broadcast_to(np.arange(cache.length, total), (rows, tokens))
        else:
            places = np.maximum(cache.seen.cumsum(axis=1) - 1, 0)[:, -tokens:]
        mask = causal(rows, tokens, total, cache.seen)
        return self._decoder.run(ids.long().numpy(), mask, np.ascontiguousarray(places), wanted, cache.state)

    @override
    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        if isinstance(self.engine, Generating):
            self.engine.generate(ids.numpy(), out.numpy(), None if mask is None else mask.bool().numpy(), end_phase)
        else:
            greedy.generate(self, ids, out, mask, end_phase)

    @override
    def memory(self, workload: Workload, device: Device) -> Memory:
        """Return what is resident beyond the stored weights, copies that the engine made included."""
        if isinstance(workload, Loading):
            return memory_under_load(self, workload, self._held(workload.capacity()))
        measured = self._weighed(self.engine, workload) if isinstance(self.engine, Weighed) else None
        measured = measured or resident(self.folder, workload, self.threads, self.allowed)
        above = max(0, measured.peak - self.facts.weight_bytes)
        phase = max(workload.representative_runs(), key=("encode", "prefill", "decode").index)
        added = float(measured.peak - measured.resting)
        return Memory({phase: above}, 0, {"resident_peak": added, "runtime_bytes": float(measured.resting)})

    def _held(self, capacity: Capacity) -> int | None:
        """Return the bytes of weights, keys and values of a server, where the engine tells them."""
        if not isinstance(self.engine, Weighed):
            return None
        cache = self.facts.options["kv_bytes_per_token"] * capacity.slots * capacity.tokens
        return self.engine.weigh()[0] + int(cache)

    def _weighed(self, engine: Weighed, workload: Workload) -> Resident:
        engine.weigh()
        for excerpt in workload.representative_runs().values():
            excerpt.run(self, Unwatched())
        return Resident(*engine.weigh())

    @override
    def server(self, capacity: Capacity) -> Server:
        return self.servers.get(capacity, self._host)

    def _host(self, capacity: Capacity) -> Server:
        runtime = runtime_of(self.facts, self.allowed)
        if not isinstance(runtime, HostsFolders):
            raise Unsupported(f"{type(runtime).__name__} has no server")
        return runtime.host(self.folder, self.facts, self.tokenizer, self.threads, capacity)

    @override
    def weights(self, dense_weights: int) -> Mapping[str, float]:
        facts = self.facts
        return {
            "weight_bytes": float(facts.weight_bytes),
            "block_bytes": float(facts.block_bytes),
            "effective_bits": 8.0 * facts.block_bytes / facts.block_weights,
            "pruning_ratio": 1.0 - facts.block_weights / dense_weights,
            "disk_bytes": float(disk_bytes(self.folder)),
            "conversion_seconds": facts.seconds,
            **{name: facts.options[name] for name in ("kv_bytes_per_token",) if name in facts.options},
        }
