"""Shared by all tests: where assets are built, and tiny random models of every family, made in process.

torch is imported by the fixtures that need it, so that the tests of the searcher start fast.
"""

from __future__ import annotations

import gc
import math
import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import settings

from objectives.tasks.progress import SoFar, listen
from objectives.types import ENCODERS, Head

if TYPE_CHECKING:
    from objectives.models import LoadedModel

settings.register_profile("paretune", max_examples=25, derandomize=True, database=None, deadline=None)
settings.load_profile("paretune")

VOCABULARY = 128
_COMMON = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_attention_heads": 4, "pad_token_id": 0}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0}
_GROUPED = {**_COMMON, **_ENDS, "num_key_value_heads": 2}
_PLAIN = {"num_hidden_layers": 2, "intermediate_size": 128, "max_position_embeddings": 128}
_BOTH: dict[str, Any] = {
    **_ENDS,
    **{f"{stack}_layers": 2 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 128 for stack in ("encoder", "decoder")},
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
_EXPERTS = {
    **dict.fromkeys(("moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts"), 4),
    "num_experts_per_tok": 2, "moe_k": 2, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "mlp_only_layers": [0],
}  # fmt: skip
"""Each family reads its own of them; where one can have it, the first block has an FFN like any other."""
SIZES: dict[str, dict[str, Any]] = {
    "llama": {**_GROUPED, "num_hidden_layers": 3, "intermediate_size": 128, "tie_word_embeddings": True},
    "mistral": {**_GROUPED, "num_hidden_layers": 2, "intermediate_size": 128, "head_dim": 32},
    "qwen2": {**_GROUPED, "num_hidden_layers": 2, "intermediate_size": 192, "tie_word_embeddings": True},
    "bert": {**_COMMON, **_PLAIN},
    "electra": {**_COMMON, **_PLAIN, "embedding_size": 32},
    "roberta": {**_COMMON, **_PLAIN},
    "distilbert": {**_COMMON, "num_hidden_layers": 2, "hidden_dim": 128, "max_position_embeddings": 128},
    "qwen3": {**_GROUPED, "num_hidden_layers": 2, "intermediate_size": 128, "head_dim": 32},
    "gemma": {**_GROUPED, "num_hidden_layers": 2, "intermediate_size": 128, "head_dim": 16},
    "gemma2": {**_GROUPED, "num_hidden_layers": 2, "intermediate_size": 128, "head_dim": 16, "sliding_window": 8},
    "gemma3_text": {**_GROUPED, "num_hidden_layers": 2, "intermediate_size": 128, "head_dim": 16},
    "gpt2": {**_COMMON, **_ENDS, "num_hidden_layers": 2, "n_inner": 128, "n_positions": 128},
    "opt": {**_COMMON, **_ENDS, "num_hidden_layers": 2, "ffn_dim": 128, "max_position_embeddings": 128},
    "bart": {**_COMMON, **_BOTH, "scale_embedding": True},
    "marian": {**_COMMON, **_BOTH, "scale_embedding": True},
    "t5": {
        **_COMMON,
        **_ENDS,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_attention_heads": 8,
        "d_kv": 8,
        "d_ff": 192,
        "decoder_start_token_id": 0,
    },
    **{family: {**_COMMON, **_PLAIN} for family in ("camembert", "data2vec-text", "ernie", "xlm-roberta")},
    **{family: {**_COMMON, **_BOTH} for family in ("blenderbot", "blenderbot-small", "mbart", "pegasus", "plbart")},
    **{
        family: {**_GROUPED, **_PLAIN, "head_dim": 16}
        for family in ("granite", "ministral3", "olmo", "smollm3", "stablelm")
    },
    **{family: {**_GROUPED, **_PLAIN} for family in ("cohere", "cohere2", "nemotron", "phi", "starcoder2")},
    **{family: {**_GROUPED, **_PLAIN, "head_dim": 16} for family in ("arcee", "helium", "seed_oss")},
    "cohere": {**_GROUPED, **_PLAIN, "use_qk_norm": True},
    "eurobert": {**_GROUPED, **_PLAIN},
    "nomic_bert": {**_COMMON, **_PLAIN},
    "ministral": {**_GROUPED, **_PLAIN, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {**_GROUPED, **_PLAIN},
    "gpt_neox": {**_COMMON, **_ENDS, **_PLAIN},
    "gptj": {**_COMMON, **_ENDS, "num_hidden_layers": 2, "n_inner": 128, "n_positions": 128, "rotary_dim": 8},
    "gpt_neo": {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_heads": 4, "num_layers": 2, "intermediate_size": 128,
        "attention_types": [[["global", "local"], 1]], "window_size": 8, "max_position_embeddings": 128, **_ENDS,
    },
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 64, "n_head": 4, "n_layer": 2, "pad_token_id": 0, **_ENDS},
    "falcon": {**_COMMON, **_ENDS, "num_hidden_layers": 2, "num_kv_heads": 2, "new_decoder_architecture": True},
    "albert": {**_COMMON, **_PLAIN, "num_hidden_layers": 2, "embedding_size": 32},
    "deberta-v2": {
        **_COMMON, **_PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
        "norm_rel_ebd": "layer_norm", "share_att_key": True,
    },
    "modernbert": {**_COMMON, **_PLAIN, "cls_token_id": 0, "sep_token_id": 0, **_ENDS, "local_attention": 16},
    "mpnet": {**_COMMON, **_PLAIN, **_ENDS, "intermediate_size": 512},
    **{family: {**_GROUPED, **_PLAIN, "head_dim": 16, "intermediate_size": 320} for family in ("olmo2", "olmo3")},
    **{
        family: {**_GROUPED, **_PLAIN, **_EXPERTS, "head_dim": 16}
        for family in (
            "dots1", "ernie4_5_moe", "flex_olmo", "glm4_moe", "minimax_m2", "mixtral", "olmoe", "phimoe", "qwen2_moe",
            "qwen3_moe",
        )
    },
    "mt5": {
        **_COMMON, **_ENDS, "num_layers": 2, "num_decoder_layers": 2, "d_kv": 16, "d_ff": 192, "num_heads": 4,
        "decoder_start_token_id": 0,
    },
}  # fmt: skip
"""By family. qwen2 has biases at q, k, v; bert everywhere; mistral has wide attention and an untied head."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon, old": (
        "falcon",
        {**SIZES["falcon"], "new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4},
    ),
    "falcon, one KV head": ("falcon", {**SIZES["falcon"], "new_decoder_architecture": False, "multi_query": True}),
    "falcon, alibi": ("falcon", {**SIZES["falcon"], "alibi": True}),
    "gpt_neox, one after the other": ("gpt_neox", {**SIZES["gpt_neox"], "use_parallel_residual": False}),
    "stablelm, norms": ("stablelm", {**SIZES["stablelm"], "qk_layernorm": True, "use_parallel_residual": True}),
    "phi, norms": ("phi", {**SIZES["phi"], "qk_layernorm": True}),
    "cohere, no norms": ("cohere", {**SIZES["cohere"], "use_qk_norm": False}),
    "deberta-v2, own keys": ("deberta-v2", {**SIZES["deberta-v2"], "share_att_key": False}),
    "albert, two groups": ("albert", {**SIZES["albert"], "num_hidden_layers": 4, "num_hidden_groups": 2}),
    "albert, two inside": ("albert", {**SIZES["albert"], "inner_group_num": 2}),
    "modernbert, biases": ("modernbert", {**SIZES["modernbert"], "attention_bias": True, "mlp_bias": True}),
    "t5, gated": ("t5", {**SIZES["t5"], "feed_forward_proj": "gated-gelu"}),
    "bert, classifier": ("bert", {**SIZES["bert"], "num_labels": 3}),
    "bert, token_classifier": ("bert", {**SIZES["bert"], "num_labels": 5}),
    "bert, question_answering": ("bert", SIZES["bert"]),
    "distilbert, classifier": ("distilbert", {**SIZES["distilbert"], "num_labels": 3}),
    "modernbert, classifier": ("modernbert", {**SIZES["modernbert"], "num_labels": 3}),
}
"""Switches of a config that change where things lie, by a name: (family, sizes)."""

HEADS: dict[str, Head] = {
    **dict.fromkeys(
        (
            "albert", "bert", "camembert", "data2vec-text", "deberta-v2", "distilbert", "electra", "ernie", "eurobert",
            "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta",
        ),
        "encoder",
    ),
    **dict.fromkeys(
        (
            "bart", "blenderbot", "blenderbot-small", "marian", "mbart", "mt5", "pegasus", "plbart", "t5",
        ),
        "seq2seq",
    ),
}  # fmt: skip
"""Of the families that are no decoders."""


def head_of(family: str) -> Head:
    """What its models are loaded with: the head that its name ends in, else that of its family."""
    _, _, head = family.partition(", ")
    if head in ENCODERS:
        return cast("Head", head)
    return HEADS.get(VARIANTS[family][0] if family in VARIANTS else family, "causal_lm")


@pytest.fixture(scope="session", autouse=True)
def _asset_cache(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """Assets go to ``$PARETUNE_CACHE``, else to a folder of this run; slow tests read the user's cache.

    The folder of this run keeps a device's peaks too, though other tests take processors while they are measured.
    """
    with pytest.MonkeyPatch.context() as patch:
        import os

        slow = any(item.get_closest_marker("slow") for item in request.session.items)
        if not os.environ.get("PARETUNE_CACHE") and not slow:
            base = tmp_path_factory.getbasetemp()
            run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one folder for all of xdist's workers
            patch.setenv("PARETUNE_CACHE", str(run / "cache"))
            patch.setattr("objectives.measuring.roofline.BUSY", math.inf)
        yield


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Leave what is there before a file's tests out of every collection of garbage: memory is measured after one."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def heard() -> Iterator[list[SoFar | None]]:
    """What is told of the scoring inside ``followed()``."""
    told: list[SoFar | None] = []
    listen(told.append)
    yield told
    listen(None)


@pytest.fixture(scope="session")
def micro_folder(_asset_cache: None) -> Path:
    """The trained micro model; built once (50 s) unless ``$PARETUNE_CACHE`` holds it."""
    from objectives.assets import locate

    return locate("micro")


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], LoadedModel]:
    """The random bf16 model of a family, by ``model_type``. Shared: copy it before changing it."""
    return cache(_build)


@pytest.fixture(scope="session")
def tiny_folder(tiny: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same model as a folder in Hugging Face's format. Shared: copy it before changing it."""

    @cache
    def saved(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        _transformer(family).save_pretrained(folder)
        tiny(family).tokenizer.save_pretrained(folder)
        return folder

    return saved


def _build(family: str) -> LoadedModel:
    import torch

    from objectives.models import LoadedModel
    from objectives.models.canonical import canonicalize_

    with torch.inference_mode(False):  # whoever asks first: others want derivatives of it
        return canonicalize_(LoadedModel(_transformer(family), _tokenizer(), head_of(family)))


def _transformer(family: str) -> Any:
    """As transformers builds and saves it."""
    import torch
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    from objectives.models import auto_class

    disable_progress_bar()
    model_type, sizes = VARIANTS.get(family) or (family, SIZES[family])
    module = auto_class(head_of(family)).from_config(AutoConfig.for_model(model_type, **sizes))
    generator = torch.Generator().manual_seed(1)
    for tensor in {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}.values():
        centre = tensor.mean() if tensor.min() == tensor.max() else 0.0  # as initialised, biases are 0 and norms 1
        values = torch.randn(tensor.shape, generator=generator) * 0.08 + centre
        if isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad:
            values = tensor.data  # a table of positions: computed, not learned
        tensor.data = values.to(torch.bfloat16)  # not module.to: it would round the rotary frequencies too
    module.tie_weights()
    return module.eval().requires_grad_(False)


def _tokenizer() -> Any:
    """One token per printable ASCII character."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokens = ["<end>", "<unk>", *string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"]
    alphabet = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=alphabet,
        clean_up_tokenization_spaces=False,
        unk_token="<unk>",
        pad_token="<end>",
        eos_token="<end>",
    )
