"""A decoder whose cache has a fixed length, and a forward pass that may be another than the module's own.

Compiled and recorded passes want tensors that stay where they are: transformers' StaticCache, as long as the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers.cache_utils import StaticCache
from typing_extensions import override

from objectives.protocols.running import Device, EndPhase, Workload
from objectives.runtime.in_torch import greedy
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Memory
from objectives.workloads.generation import Generation


@dataclass(eq=False)
class StaticCacheRunner(TorchRunner):
    """Runs ``forward``, by default the module's own pass, with a cache as long as the whole text.

    ``seconds``: how long preparing it took; ``room``: tokens that the cache of the current run holds, 0 outside of
    runs; ``least``: the fewest that it holds in any run; ``prompt``: tokens that the run began with.
    """

    forward: Any = None
    seconds: float = 0.0
    room: int = 0
    least: int = 0
    prompt: int = 0

    def __post_init__(self) -> None:
        if self.forward is None:
            self.forward = self.module

    @override
    def _encode(self, inputs: Mapping[str, Any]) -> Any:
        return self.forward(**inputs)

    @override
    def logits(self, ids: Tensor, first: int = 0) -> Tensor:
        logits: Tensor = self.forward(input_ids=ids, use_cache=False).logits
        return logits[:, first:]

    @override
    def _pass(self, ids: Tensor, cache: Any, mask: Tensor | None, seen: Tensor | None = None) -> tuple[Tensor, Any]:
        if mask is not None or not (self.room or isinstance(cache, StaticCache)):
            return super()._pass(ids, cache, mask, seen)  # padded, or of unknown length
        cache = cache or StaticCache(config=self.module.config, max_cache_len=self.room)
        return self._write(ids, cache), cache

    def _write(self, ids: Tensor, cache: StaticCache) -> Tensor:
        """Write ``ids`` into ``cache`` and return the logits [rows, vocabulary] of the token after the last."""
        logits: Tensor = self.forward(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1]

    @override
    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        self.prompt, self.room = ids.shape[1], max(self.least, ids.shape[1] + out.shape[1])
        try:
            greedy.generate(self, ids, out, mask, end_phase)
        finally:
            self.room = 0

    @override
    def memory(self, workload: Workload, device: Device) -> Memory:
        """Return what a run adds; the cache has its whole length from the first pass on."""
        return device.memory(replace(self, least=_length(workload)), workload)

    @override
    def weights(self, dense_weights: int) -> Mapping[str, float]:
        return {**super().weights(dense_weights), "conversion_seconds": self.seconds}


def _length(workload: Workload) -> int:
    """Return how many tokens a text of ``workload`` has in the end; 0 where none is written."""
    return workload.prompt_tokens + workload.new_tokens if isinstance(workload, Generation) else 0
