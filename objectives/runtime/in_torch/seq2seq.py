"""The passes of an encoder-decoder in torch: its encoder, and its decoder from a cache of both attentions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from objectives.errors import Unsupported
from objectives.models.sourced import Sourced, Sources
from objectives.protocols.encoder_decoder import Opening
from objectives.runtime.in_torch.head_tokens import tokens_from


def opening_of(module: Any) -> Opening:
    """Return how the decoder of ``module`` begins. Raises Unsupported where its checkpoint does not say."""
    said = (getattr(module, "generation_config", None), module.config)
    names = ("decoder_start_token_id", "bos_token_id")
    known = [token for name in names for one in said if (token := getattr(one, name, None)) is not None]
    if not known:
        raise Unsupported("neither generation_config.json nor config.json has a decoder_start_token_id")
    forced = getattr(said[0], "forced_bos_token_id", None)
    words = getattr(said[0], "bad_words_ids", None) or ()
    alone = [word[0] for word in words if len(word) == 1]
    forbidden = (*alone, *(getattr(said[0], "suppress_tokens", None) or ()))
    return Opening((known[0], *(() if forced is None else (forced,))), tuple(sorted(set(forbidden))))


def shifted(ids: Tensor, start: int) -> Tensor:
    """Return ``ids`` [rows, tokens] one place later, after ``start``, as a decoder reads what it is to write."""
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)


def read(module: Any, ids: Tensor, mask: Tensor | None) -> Sources:
    """Make the encoder of ``module`` read ``ids`` [rows, tokens]."""
    return Sources(module.get_encoder()(input_ids=ids, attention_mask=mask), mask, tuple(range(len(ids))))


def write(module: Any, ids: Tensor, sources: Sources, cache: Any = None) -> tuple[Tensor, Sourced]:
    """Make the decoder of ``module`` read ``ids`` [rows, tokens] after what is in ``cache``.

    Return the logits of the token after the last [rows, vocabulary], and the new cache.
    """
    with tokens_from(module.get_output_embeddings(), -1):
        output = module(
            decoder_input_ids=ids, encoder_outputs=sources.states, attention_mask=sources.mask,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
    return output.logits[:, -1], Sourced(output.past_key_values, sources)


def select(held: Sourced, rows: Sequence[int]) -> Sourced | None:
    """Return the cache with these rows alone; None where a cache of this kind cannot."""
    cache, sources = held.cache, held.sources
    if not isinstance(cache.self_attention_cache, DynamicCache):
        return None
    places = torch.tensor(rows, device=sources.states[0].device)
    origins = tuple(sources.origins[row] for row in rows)
    if origins == sources.origins:  # beams of the same sources in another order: what was read stays
        cache.self_attention_cache.batch_select_indices(places)
        return held
    cache.batch_select_indices(places)
    mask = None if sources.mask is None else sources.mask[places]
    return Sourced(cache, Sources(BaseModelOutput(sources.states[0][places]), mask, origins))
