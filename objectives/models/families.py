"""Descriptions of architectures, as data: where each block keeps its projections.

Pruning needs to know, for every block, which linears read the residual stream, which linears produce the channels
that may be removed, and which consume them. That is all a family is. To add one, add a row: the paths are those of
``model.named_modules()`` inside one block. Pruners see only the units of a block
(:mod:`objectives.models.blocks`), whatever the family.

Some architectures keep more than weights: attributes that count heads, one linear for query, key and value. That
is data too. What fits no description stays unpruned: the position bias of T5 is made by the self-attention of the
first block for all others, so that this block stays and all need the same heads there; cross-attention and FFN are
free.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from objectives.errors import Unsupported
from objectives.models.anatomy import Attention, Family, Ffn, Stack
from objectives.models.hybrids import REFUSED


def _attention(where: str, query: str, key: str, value: str, out: str, **data: Any) -> Attention:
    """Describe attention whose linears lie below one path."""
    return Attention(f"{where}.{query}", f"{where}.{key}", f"{where}.{value}", f"{where}.{out}", **data)


_LLAMA = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),),
            (Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),),
        ),
    )
)
_COHERE = Family(
    (
        Stack(
            "layers",
            (
                _attention(
                    "self_attn", "q_proj", "k_proj", "v_proj", "o_proj",
                    followers=("self_attn.q_norm", "self_attn.k_norm"),
                ),
            ),
            (Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),),
        ),
    )
)  # fmt: skip
"""Norms of query and key have weights for every head."""
_OLMO2 = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj", prunable=False),),
            (Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),),
        ),
    )
)
"""One norm over all heads: without one of them the others would change."""
_STABLELM = Family(
    (
        Stack(
            "layers",
            (
                _attention(
                    "self_attn", "q_proj", "k_proj", "v_proj", "o_proj",
                    heads=("self_attn.num_heads",), kv_heads=("self_attn.num_key_value_heads",),
                    unless=("qk_layernorm",),
                ),
            ),
            (Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),),
        ),
    )
)  # fmt: skip
_MIXTRAL = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),),
            (Ffn(("mlp.experts.*.gate_up_proj",) * 2, "mlp.experts.*.down_proj"),),
        ),
    )
)
_OLMOE = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj", prunable=False),),  # normed as in OLMo 2
            (Ffn(("mlp.experts.*.gate_up_proj",) * 2, "mlp.experts.*.down_proj"),),
        ),
    )
)
_QWEN_MOE = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),),
            (
                Ffn(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
                Ffn(("mlp.experts.*.gate_up_proj",) * 2, "mlp.experts.*.down_proj"),
                *(
                    Ffn((f"mlp.{shared}.gate_proj", f"mlp.{shared}.up_proj"), f"mlp.{shared}.down_proj")
                    for shared in ("shared_expert", "shared_experts")
                ),
            ),
        ),
    )
)
"""Some blocks have one FFN, the others experts, of which one may be shared by all tokens."""
_STARCODER2 = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),),
            (Ffn(("mlp.c_fc",), "mlp.c_proj"),),
        ),
    )
)
_NEMOTRON = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),),
            (Ffn(("mlp.up_proj",), "mlp.down_proj"),),
        ),
    )
)
_PHI = Family(
    (
        Stack(
            "layers",
            (_attention("self_attn", "q_proj", "k_proj", "v_proj", "dense"),),
            (Ffn(("mlp.fc1",), "mlp.fc2"),),
        ),
    )
)
_PHI3 = Family(
    (
        Stack(
            "layers",
            (
                Attention(
                    *("self_attn.qkv_proj",) * 3,
                    "self_attn.o_proj",
                    heads=("self_attn.config.num_attention_heads",),
                    kv_heads=("self_attn.num_key_value_heads",),
                ),
            ),
            (Ffn(("mlp.gate_up_proj",) * 2, "mlp.down_proj"),),
            copies=("self_attn.config",),
        ),
    )
)
_MODERNBERT = Family(
    (
        Stack(
            "layers",
            (Attention(*("attn.Wqkv",) * 3, "attn.Wo"),),
            (Ffn(("mlp.Wi",) * 2, "mlp.Wo"),),
            fixed=(0,),  # the embedding's norm is that of its attention: it has none of its own
        ),
    )
)


def _fused(where: str, **data: Any) -> Attention:
    """Describe attention with one linear that writes query, key and value of a head, then those of the next."""
    return Attention(*(f"{where}.query_key_value",) * 3, f"{where}.dense", interleaved=True, **data)


_WIDER = Ffn(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h")
_GPT_NEOX = Family((Stack("layers", (_fused("attention"),), (_WIDER,)),))
_BLOOM = Family(
    (
        Stack(
            "h",
            (_fused("self_attention", prunable=False),),  # which head it is says how fast its attention fades
            (_WIDER,),
            constants=(("self_attention.pretraining_tp", 1), ("mlp.pretraining_tp", 1)),  # slices that assume all heads
        ),
    )
)
_FALCON = Family(
    (
        Stack(
            "h",
            (
                _fused(
                    "self_attention",
                    heads=("self_attention.num_heads",),
                    kv_heads=("self_attention.num_kv_heads",),
                    unless=("alibi",),
                ),
            ),
            (_WIDER,),
        ),
    )
)
_GPTJ = Family(
    (
        Stack(
            "h",
            (_attention("attn", "q_proj", "k_proj", "v_proj", "out_proj", heads=("attn.num_attention_heads",)),),
            (Ffn(("mlp.fc_in",), "mlp.fc_out"),),
        ),
    )
)
_GPT_NEO = Family(
    (
        Stack(
            "h",
            (
                _attention(
                    "attn.attention", "q_proj", "k_proj", "v_proj", "out_proj", heads=("attn.attention.num_heads",)
                ),
            ),
            (Ffn(("mlp.c_fc",), "mlp.c_proj"),),
            depth="",  # the config says what attention blocks have by how many there are
        ),
    )
)
_BERT = Family(
    (
        Stack(
            "encoder.layer",
            (_attention("attention", "self.query", "self.key", "self.value", "output.dense"),),
            (Ffn(("intermediate.dense",), "output.dense"),),
        ),
    )
)
_DISTILBERT = Family(
    (
        Stack(
            "transformer.layer",
            (_attention("attention", "q_lin", "k_lin", "v_lin", "out_lin"),),
            (Ffn(("ffn.lin1",), "ffn.lin2"),),
        ),
    )
)
_MPNET = Family(
    (
        Stack(
            "encoder.layer",
            (_attention("attention.attn", "q", "k", "v", "o", prunable=False),),  # the position bias has all heads
            (Ffn(("intermediate.dense",), "output.dense"),),
        ),
    )
)
_DEBERTA = Family(
    (
        Stack(
            "encoder.layer",
            (
                _attention(
                    "attention", "self.query_proj", "self.key_proj", "self.value_proj", "output.dense",
                    heads=("attention.self.num_attention_heads",), channels=("attention.self.all_head_size",),
                    followers=("attention.self.pos_key_proj", "attention.self.pos_query_proj"), positions=True,
                ),
            ),
            (Ffn(("intermediate.dense",), "output.dense"),),
            tables=("encoder.rel_embeddings",),
        ),
    )
)  # fmt: skip
_ALBERT = Family(
    (
        Stack(
            "encoder.albert_layer_groups",
            (_attention("albert_layers.*.attention", "query", "key", "value", "dense"),),
            (Ffn(("albert_layers.*.ffn",), "albert_layers.*.ffn_output"),),
            depth="",
        ),
    )
)
"""A block stands for all of its repeats: it is pruned once, and none can go."""


def _fairseq(where: str, **data: Any) -> Attention:
    """Describe attention by the names of Meta's fairseq, from which OPT, BART and Marian come."""
    counts = {"heads": (f"{where}.num_heads",), "channels": (f"{where}.embed_dim",)}
    return _attention(where, "q_proj", "k_proj", "v_proj", "out_proj", **counts, **data)


_OPT = Family((Stack("decoder.layers", (_fairseq("self_attn"),), (Ffn(("fc1",), "fc2"),)),))

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
            (Ffn(("mlp.c_fc",), "mlp.c_proj"),),
        ),
    )
)

_BART = Family(
    (
        Stack(
            "encoder.layers",
            (_fairseq("self_attn"),),
            (Ffn(("fc1",), "fc2"),),
            heads="encoder_attention_heads",
            depth="encoder_layers",
        ),
        Stack(
            "decoder.layers",
            (_fairseq("self_attn"), _fairseq("encoder_attn", cross=True)),
            (Ffn(("fc1",), "fc2"),),
            heads="decoder_attention_heads",
            depth="decoder_layers",
        ),
    )
)


def _t5_ffn(where: str) -> tuple[Ffn, ...]:
    """Describe the FFN of a block: ``wi`` in the first T5; ``wi_0`` and ``wi_1``, gated, since T5 1.1."""
    return (Ffn((f"{where}.wi", f"{where}.wi_0", f"{where}.wi_1"), f"{where}.wo"),)


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

_AS_LLAMA = (
    "eurobert", "gemma", "gemma2", "gemma3_text", "granite", "helium", "llama", "ministral", "ministral3", "mistral",
    "nomic_bert", "olmo", "qwen2", "qwen3", "seed_oss", "smollm3",
)  # fmt: skip
_AS_BERT = ("bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "xlm-roberta")
_AS_BART = (
    "bart", "blenderbot", "blenderbot-small", "marian", "mbart", "pegasus", "plbart",
)  # fmt: skip
FAMILIES = {
    **dict.fromkeys(_AS_LLAMA, _LLAMA),
    **dict.fromkeys(_AS_BART, _BART),
    **dict.fromkeys(_AS_BERT, _BERT),
    **dict.fromkeys(("cohere", "cohere2"), _COHERE),
    **dict.fromkeys(("olmo2", "olmo3"), _OLMO2),
    **dict.fromkeys(("mt5", "t5"), _T5),
    **dict.fromkeys(("arcee", "nemotron"), _NEMOTRON),
    **dict.fromkeys(("dots1", "ernie4_5_moe", "glm4_moe", "qwen2_moe", "qwen3_moe"), _QWEN_MOE),
    **dict.fromkeys(("flex_olmo", "minimax_m2", "olmoe"), _OLMOE),
    **dict.fromkeys(("mixtral", "phimoe"), _MIXTRAL),
    "albert": _ALBERT,
    "bloom": _BLOOM,
    "deberta-v2": _DEBERTA,
    "distilbert": _DISTILBERT,
    "falcon": _FALCON,
    "gpt2": _GPT2,
    "gpt_neo": _GPT_NEO,
    "gpt_neox": _GPT_NEOX,
    "gptj": _GPTJ,
    "modernbert": _MODERNBERT,
    "mpnet": _MPNET,
    "opt": _OPT,
    "phi": _PHI,
    "phi3": _PHI3,
    "stablelm": _STABLELM,
    "starcoder2": _STARCODER2,
}
"""Our rows, by ``config.model_type``."""


LOOKS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"relative_attention", "pos_att_type"}), "deberta-v2"),
    (frozenset({"num_hidden_groups"}), "albert"),
    (frozenset({"new_decoder_architecture"}), "falcon"),
    (frozenset({"d_kv", "d_ff"}), "t5"),
    (frozenset({"encoder_layers", "decoder_layers"}), "bart"),
    (frozenset({"rotary_pct"}), "gpt_neox"),
    (frozenset({"n_embd", "rotary_dim"}), "gptj"),
    (frozenset({"n_embd"}), "gpt2"),
    (frozenset({"global_attn_every_n_layers"}), "modernbert"),
    (frozenset({"type_vocab_size"}), "bert"),
    (frozenset({"num_local_experts", "rms_norm_eps"}), "mixtral"),
    (frozenset({"num_experts", "rms_norm_eps"}), "qwen2_moe"),
    (frozenset({"rms_norm_eps"}), "llama"),
    (frozenset({"num_key_value_heads"}), "starcoder2"),
    (frozenset({"ffn_dim"}), "opt"),
)
"""Fields of a config that give a family away, the most telling first."""


UNLIKE = frozenset({"kv_lora_rank", "swiglu_alpha", "hidden_size_per_layer_input"})
"""Fields of a config that no described type is built like: latent attention, interleaved gates, inputs by layer."""


FUSED_EXPERTS = frozenset({"dbrx", "doge", "jetmoe", "llama4", "llama4_text", "longcat_flash", "muse_spark"})
"""Types whose experts are one tensor that :mod:`objectives.models.experts` cannot take apart."""


def described(model_type: str) -> bool:
    """Return whether a row describes models of this type; others are quantised, never pruned."""
    return model_type in FAMILIES


def refusal(model_type: str) -> str | None:
    """Return in one line why models of this type are refused; None for types that are taken, described or not."""
    reason = REFUSED.get(model_type)
    return None if reason is None else f"model type {model_type!r} is not taken: {reason}"


def relative(model_type: str, fields: Collection[str] = ()) -> str | None:
    """Return the described type nearest to a type without row: by name, else by the ``fields`` of its config."""
    if UNLIKE & set(fields):
        return None
    close = get_close_matches(model_type, FAMILIES, n=1, cutoff=0.75)
    looks = (family for telling, family in LOOKS if telling <= set(fields))
    return close[0] if close else next(looks, None)


def undescribed(model_type: str, fields: Collection[str] = ()) -> str:
    """Say in one line what can be done with a type that no row describes."""
    near = relative(model_type, fields)
    experts = "; its experts stay in 16 bits" if model_type in FUSED_EXPERTS else ""
    like = f"; if it is built like {near}, +model.families={{{model_type}: {near}}} says so" if near else ""
    return (
        f"model type {model_type!r} is not described: it is quantised and timed, but not pruned{experts}{like}; "
        f"known: {', '.join(sorted(FAMILIES))}; to describe it: docs/adding_a_family.md"
    )


def family_of(model_type: str) -> Family:
    """Return the family of a ``config.model_type``. Raises Unsupported, naming the known types, where there is none."""
    if model_type not in FAMILIES:
        raise Unsupported(refusal(model_type) or undescribed(model_type))
    return FAMILIES[model_type]
