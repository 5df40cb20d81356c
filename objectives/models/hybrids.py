"""Architectures that paretune refuses by name: their blocks keep a state that no description of ours covers.

A transformer block is attention and an FFN; a cache of keys and values is all that it remembers. Recurrent and
state-space blocks remember something else: the workloads do not time it, and the pruners' sets of channels do not hold
in it. Data only: the driver asks before anything is loaded.
"""

from __future__ import annotations

_STATE_SPACE = "a state-space model: its blocks have no attention, and their state is no cache of keys and values"
_RECURRENT = "a recurrent model: its blocks carry a state from token to token in place of a cache of keys and values"
_HYBRID = "a hybrid: some of its blocks are attention, the others are recurrent or state-space"
_CONVOLUTION = "a hybrid: some of its blocks are attention, the others are convolutions with a state of their own"
_LINEAR = "a hybrid: some of its blocks are attention, the others are linear attention with a state of their own"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("falcon_mamba", "mamba", "mamba2"), _STATE_SPACE),
    **dict.fromkeys(("rwkv", "rwkv7", "xlstm"), _RECURRENT),
    **dict.fromkeys(
        (
            "bamba", "falcon_h1", "granitemoehybrid", "jamba", "nemotron_h", "nemotron_h_omni", "recurrent_gemma",
            "zamba", "zamba2",
        ),
        _HYBRID,
    ),
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm2_vl", "lfm3", "lfm3_vl"), _CONVOLUTION),
    **dict.fromkeys(
        ("bailing_hybrid", "kimi_linear", "minimax", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next"), _LINEAR
    ),
}  # fmt: skip
"""The reason for each refusal, by ``config.model_type``."""
