"""Where an architecture keeps its projections, as data.

Pruning needs to know, for every block, which linears read the residual stream, which produce the channels
that may go, and which consume them. That is all a family is. To add one, add a row: the paths are those of
``model.named_modules()`` inside one block. Pruners see only the units of a block
(:mod:`objectives.blocks`), whatever the family.

Some architectures keep more than weights: attributes that count heads, one linear for query, key and value. That
is data too. What fits no description stays unpruned: the position bias of T5 is made by the self-attention of the
first block for all others, so that this block stays and all need the same heads there; cross-attention and FFN are
free.
"""

from __future__ import annotations

from typing import Any

from objectives.anatomy import Attention, Family, Ffn, Stack
from objectives.errors import Unsupported
from objectives.hybrids import REFUSED


def _attention(where: str, query: str, key: str, value: str, out: str, **data: Any) -> Attention:
    """Linears below one path."""
    return Attention(f"{where}.{query}", f"{where}.{key}", f"{where}.{value}", f"{where}.{out}", **data)


_LLAMA = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),),
            Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
        ),
    )
)
_BERT = Family(
    (
        Stack(
            "encoder.layer",
            (_attention("attention", "self.query", "self.key", "self.value", "output.dense"),),
            Ffn(("intermediate.dense",), "output.dense"),
        ),
    )
)
_DISTILBERT = Family(
    (
        Stack(
            "transformer.layer",
            (_attention("attention", "q_lin", "k_lin", "v_lin", "out_lin"),),
            Ffn(("ffn.lin1",), "ffn.lin2"),
        ),
    )
)


def _fairseq(where: str, **data: Any) -> Attention:
    """As Meta's fairseq names things, from which OPT, BART and Marian come."""
    counts = {"heads": (f"{where}.num_heads",), "channels": (f"{where}.embed_dim",)}
    return _attention(where, "q_proj", "k_proj", "v_proj", "out_proj", **counts, **data)


_OPT = Family((Stack("decoder.layers", (_fairseq("self_attn"),), Ffn(("fc1",), "fc2")),))

_GPT2 = Family(
    (
        Stack(
            "h",
            (
                Attention(
                    *("attn.c_attn",) * 3,
                    "attn.c_proj",
                    heads=("attn.num_heads",),
                    channels=("attn.embed_dim", "attn.split_size"),
                ),
            ),
            Ffn(("mlp.c_fc",), "mlp.c_proj"),
        ),
    )
)

_BART = Family(
    (
        Stack(
            "encoder.layers",
            (_fairseq("self_attn"),),
            Ffn(("fc1",), "fc2"),
            heads="encoder_attention_heads",
            depth="encoder_layers",
        ),
        Stack(
            "decoder.layers",
            (_fairseq("self_attn"), _fairseq("encoder_attn", cross=True)),
            Ffn(("fc1",), "fc2"),
            heads="decoder_attention_heads",
            depth="decoder_layers",
        ),
    )
)


def _t5_ffn(where: str) -> Ffn:
    """``wi`` in the first T5; ``wi_0`` and ``wi_1``, a gated FFN, since T5 1.1."""
    return Ffn((f"{where}.wi", f"{where}.wi_0", f"{where}.wi_1"), f"{where}.wo")


_T5_SELF = _attention("layer.0.SelfAttention", "q", "k", "v", "o", prunable=False)
_T5 = Family(
    (
        Stack(
            "encoder.block",
            (_T5_SELF,),
            _t5_ffn("layer.1.DenseReluDense"),
            depth="num_layers",
            fixed=(0,),
            covers="decoder.block",  # transformers makes the decoder's cache as long as the encoder
        ),
        Stack(
            "decoder.block",
            (_T5_SELF, _attention("layer.1.EncDecAttention", "q", "k", "v", "o", cross=True)),
            _t5_ffn("layer.2.DenseReluDense"),
            depth="num_decoder_layers",
            fixed=(0,),
            # The first block makes the position bias of all cross-attentions, which is zero: for one head it fits any.
            constants=(("layer.1.EncDecAttention.n_heads", 1),),
        ),
    )
)

FAMILIES = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    **dict.fromkeys(("bart", "marian"), _BART),
    **dict.fromkeys(("bert", "electra", "roberta"), _BERT),
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    "opt": _OPT,
    "t5": _T5,
}
"""By ``config.model_type``."""


def described(model_type: str) -> bool:
    """Whether a row says how models of this type are built; what no row describes is quantised, never pruned."""
    return model_type in FAMILIES


def refusal(model_type: str) -> str | None:
    """Why models of this type are not taken at all, in one line; None for those that are, described or not."""
    reason = REFUSED.get(model_type)
    return None if reason is None else f"model type {model_type!r} is not taken: {reason}"


def family_of(model_type: str) -> Family:
    """The family of a ``config.model_type``; raises Unsupported naming those known."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise Unsupported(
            f"model type {model_type!r} is not described yet; known: {known}. "
            "Add a row to objectives/families.py to describe it."
        )
    return FAMILIES[model_type]
