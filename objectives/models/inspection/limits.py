"""Bounds that a config sets: how long sequences may be, and the least memory that a run takes.

``positions`` is where the model was made to end: beyond it a table of positions has no row, and a rotary model answers
without a word what it never learned. ``least_bytes`` is a bound from below, from shapes alone: token ids, what the
caches hold and one row of logits per request must fit whatever the engine and the bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from objectives.models.inspection.config import Config
from objectives.models.inspection.library import modelling
from objectives.models.inspection.spans import Side, Span
from objectives.types import ENCODERS, Head

_LENGTHS = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "n_positions", "n_ctx")
_ID_BYTES, _VALUE_BYTES, _KEPT_BYTES = 8, 2, 0.5
"""Bytes of an id, of a state or logit, and of a key or value, which some engines keep in 4 bits."""


def positions(config: Config, side: Side) -> int | None:
    """Return how many tokens of one sequence the model can hold; None where nothing limits them."""
    if _is_linear_bias(config):
        return None
    names = (f"max_{side}_position_embeddings", *_LENGTHS)
    limit = next((config.number(name) for name in names if config.declares(name) and config.number(name)), None)
    if limit is None:
        return None
    return max([limit - _offset(config), *_scaled(config, limit)])


def _is_linear_bias(config: Config) -> bool:
    """Return whether the model uses linear biases (ALiBi) instead of positions."""
    attention = config.get("attn_config")
    said = attention.get("alibi", True) if isinstance(attention, Mapping) else config.declares("attn_config")
    return bool(config.get("alibi") or said)


def _offset(config: Config) -> int:
    """Return how many rows of the position table no token uses: RoBERTa counts from behind the padding's index."""
    source = modelling(config.model_type)
    if config.get("is_encoder_decoder") or "create_position_ids_from_input_ids" not in source:
        return 0
    fixed = re.search(r"^\s+self\.padding_idx = (\d+)$", source, re.MULTILINE)
    padding = int(fixed[1]) if fixed else config.get("pad_token_id")
    return padding + 1 if isinstance(padding, int) else 0


def _scaled(config: Config, limit: int) -> Iterator[int]:
    """Yield how many tokens the scaled rotary positions reach."""
    said = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(said, Mapping):
        return
    for scaling in (said, *(part for part in said.values() if isinstance(part, Mapping))):
        kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
        original = scaling.get("original_max_position_embeddings")
        if original is None and kind in {"linear", "dynamic"}:
            original = limit
        if isinstance(factor, (int, float)) and isinstance(original, (int, float)):
            yield int(factor * original)


def least_bytes(config: Config, head: Head, batch_size: int, spans: tuple[Span, ...]) -> int:
    """Return the bytes that one run takes at least, beside the weights."""
    tokens = batch_size * sum(span.tokens for span in spans)
    width, vocabulary = config.number("hidden_size") or 0, config.number("vocab_size") or 0
    states = batch_size * sum(span.tokens for span in spans if span.side == "encoder") * width * _VALUE_BYTES
    if head in ENCODERS:
        return tokens * _ID_BYTES + states
    written = batch_size * sum(span.tokens for span in spans if span.side == "decoder")
    return tokens * _ID_BYTES + states + written * _cache_bytes(config) + batch_size * vocabulary * _VALUE_BYTES


def _cache_bytes(config: Config) -> int:
    """Return the bytes of keys and values per token; 0 where some blocks keep none, or fewer tokens than there are."""
    for name in ("sliding_window", "kv_lora_rank", "layer_types", "num_kv_shared_layers", "attention_layers"):
        if config.get(name):
            return 0
    heads, width = config.number("num_attention_heads"), config.number("hidden_size")
    blocks: Any = config.number("decoder_layers") or config.number("num_decoder_layers")
    blocks = blocks or config.number("num_hidden_layers")
    if heads is None or width is None or blocks is None:
        return 0
    kept = 1 if config.get("multi_query") else config.number("num_key_value_heads") or heads
    return int(2 * blocks * kept * (config.number("head_dim") or width // heads) * _KEPT_BYTES)
