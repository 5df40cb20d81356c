"""The runner of torch itself: it runs a compressed model in eager mode, module by module.

The other runners of torch derive from it and change what a pass or a whole text is: a cache of fixed length
(:mod:`.static_cache`), recorded passes (:mod:`.captured`), guesses (:mod:`.prompt_lookup`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from typing_extensions import override

from objectives.devices.allocations import cache_bytes
from objectives.models.heads import encoded
from objectives.models.padded import Padded
from objectives.models.sourced import Sourced, Sources
from objectives.packing.weighing import disk_bytes, stored_bytes, weigh
from objectives.protocols.encoder_decoder import Opening, ReadsSources
from objectives.protocols.running import Device, EndPhase, Runner, RunsInTorch, SelectsRows, Workload
from objectives.runtime.in_torch import greedy, seq2seq
from objectives.runtime.in_torch.head_tokens import tokens_from
from objectives.runtime.in_torch.rounded_cache import rounded_cache
from objectives.types import Head, Memory, Note

if TYPE_CHECKING:
    from objectives.models.loaded_model import LoadedModel


@dataclass(eq=False)
class TorchRunner(Runner, RunsInTorch, SelectsRows, ReadsSources):
    """Runs ``model`` where its weights are.

    A cache is that of transformers, with a mask where rows are padded, or with the sources of an encoder-decoder.
    ``kv_bits``: of a decoder's keys and values; below 16 every pass attends to rounded ones.
    """

    model: LoadedModel
    kv_bits: int = field(default=16, kw_only=True)

    @property
    @override
    def module(self) -> Any:
        return self.model.module

    @property
    @override
    def head(self) -> Head:
        return self.model.head

    @property
    @override
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @property
    @override
    def vocabulary(self) -> int:
        return self.model.vocabulary

    @property
    @override
    def labels(self) -> Sequence[str]:
        return self.model.labels

    @property
    @override
    def end_tokens(self) -> Sequence[int]:
        return self.model.end_tokens

    @property
    @override
    def stored_bytes(self) -> int:
        return stored_bytes([self.module])

    @property
    @override
    def notes(self) -> Sequence[Note]:
        return self.model.notes

    @property
    @override
    def simulated(self) -> bool:
        return self.model.simulated

    @property
    @override
    def predicted_loss(self) -> float:
        return self.model.predicted_loss

    @property
    @override
    def device(self) -> torch.device:
        device: torch.device = self.module.device
        return device

    @override
    def encode(self, ids: Tensor, mask: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        typed = {} if types is None else {"token_type_ids": types}
        return encoded(self.head, self._encode({"input_ids": ids, "attention_mask": mask, **typed}))

    def _encode(self, inputs: Mapping[str, Any]) -> Any:
        return self.module(**inputs)

    @override
    def logits(self, ids: Tensor, first: int = 0) -> Tensor:
        given = {"input_ids": ids}
        if self.head == "seq2seq":
            given["decoder_input_ids"] = seq2seq.shifted(ids, self.opening.tokens[0])
        kept = self._empty_cache()
        held = {"use_cache": False} if kept is None else {"use_cache": True, "past_key_values": kept}
        with tokens_from(self.module.get_output_embeddings(), first):
            logits: Tensor = self.module(**given, **held).logits
        return logits[:, first - ids.shape[1] :]

    def _empty_cache(self) -> DynamicCache | None:
        """Return the cache to begin with; None where the model makes its own, of 16 bits."""
        return None if self.kv_bits == 16 else rounded_cache(self.module.config, self.kv_bits)

    @property
    @override
    def opening(self) -> Opening:
        return seq2seq.opening_of(self.module) if self.head == "seq2seq" else Opening()

    @override
    def read(self, ids: Tensor, mask: Tensor | None = None) -> Sources:
        return seq2seq.read(self.module, ids, mask)

    @override
    def begin(self, sources: Sources, ids: Tensor) -> tuple[Tensor, Any]:
        return seq2seq.write(self.module, ids, sources)

    @override
    def prefill(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        if self.head == "seq2seq":
            return self.begin(self.read(ids, mask), ids.new_tensor([self.opening.tokens]).repeat(len(ids), 1))
        return self._pass(ids, None, mask)

    @override
    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        if isinstance(cache, Sourced):
            return seq2seq.write(self.module, ids, cache.sources, cache.cache)
        if not isinstance(cache, Padded):
            return self._pass(ids, cache, None)
        return self._pass(ids, cache.cache, cache.mask.new_ones(len(ids), ids.shape[1]), cache.mask)

    def _pass(self, ids: Tensor, cache: Any, mask: Tensor | None, seen: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return what ``step`` returns; ``mask`` says which of ``ids`` count, ``seen`` which tokens in the cache."""
        cache = self._empty_cache() if cache is None else cache
        given: dict[str, Any] = {"input_ids": ids, "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        whole = mask if mask is None or seen is None else torch.cat([seen, mask], dim=1)
        if whole is not None:
            places = (whole.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            given |= {"attention_mask": whole, "position_ids": places}
        with tokens_from(self.module.get_output_embeddings(), -1 if min(ids.shape) > 1 else 0):
            output = self.module(**given)
        logits, held = output.logits[:, -1], output.past_key_values
        return logits, held if whole is None else Padded(held, whole)

    @override
    def select(self, cache: Any, rows: Sequence[int]) -> Any:
        if isinstance(cache, Sourced):
            return seq2seq.select(cache, rows)
        held = cache.cache if isinstance(cache, Padded) else cache
        if not isinstance(held, DynamicCache):
            return None
        places = torch.tensor(rows, device=self.device)
        held.batch_select_indices(places)
        return Padded(held, cache.mask[places]) if isinstance(cache, Padded) else held

    @override
    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        greedy.generate(self, ids, out, mask, end_phase)

    @override
    def memory(self, workload: Workload, device: Device) -> Memory:
        return device.memory(self, workload)  # what torch's allocator hands out

    @override
    def weights(self, dense_weights: int) -> Mapping[str, float]:
        weighed = {**weigh(self.model, dense_weights), "disk_bytes": float(disk_bytes(self.model))}
        if self.head != "causal_lm":
            return weighed
        with torch.inference_mode():
            _, cache = self.prefill(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        return {**weighed, "kv_bytes_per_token": float(cache_bytes(cache))}
