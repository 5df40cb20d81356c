"""Checks that a config describes a text model for the head that is asked for, in full precision.

The config says of which kind a model is (``is_decoder``, ``is_encoder_decoder``, ``architectures``); transformers' own
tables say what it can build of it. No list of names is kept here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives.errors import ModelError, Unsupported
from objectives.models import families
from objectives.models.inspection.config import Config, read_json
from objectives.models.inspection.library import builds, installed, model_types
from objectives.types import ENCODERS, Head

_QUANTISED = ("quantize_config.json", "quantization_config.json", "quant_config.json", "hf_quant_config.json")
_TEXT = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "TEXT_ENCODING", "TOKEN_CLASSIFICATION",
         "QUESTION_ANSWERING")  # fmt: skip
_PART = re.compile(r"(text|vision|audio|speech|image|video)\w*_config$")
_ANSWERS = re.compile(r"For(Sequence|Token)Classification|ForQuestionAnswering|ForMultipleChoice|RewardModel")


def refuse_quantised(folder: Path, config: Config) -> None:
    """Raise ModelError for weights that were quantised before, whatever the method."""
    settings = config.raw.get("quantization_config") or config.raw.get("compression_config")
    file = next((name for name in _QUANTISED if (folder / name).is_file()), None)
    if not settings and file is not None:
        settings = read_json(folder / file)
    if not settings:
        return
    said: Mapping[str, Any] = settings if isinstance(settings, Mapping) else {}
    inner = said.get("quantization")
    said = inner if isinstance(inner, Mapping) else said
    method = next((said[key] for key in ("quant_method", "quant_algo", "quant_type") if said.get(key)), None)
    bits = _bits(said, str(method or ""))
    words = ", ".join([str(method or file or "quantization_config"), *([f"{bits} bits"] if bits else [])])
    raise ModelError(f"model.path: {folder} is quantised already ({words}); give the full-precision checkpoint")


def _bits(said: Mapping[str, Any], method: str) -> int | None:
    for key in ("bits", "w_bit", "num_bits"):
        if isinstance(said.get(key), int):
            return int(said[key])
    for bits in (4, 8):
        if said.get(f"load_in_{bits}bit"):
            return bits
    groups = said.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and isinstance(weights.get("num_bits"), int):
            return int(weights["num_bits"])
    found = re.search(r"(?:fp|int|mxfp|nvfp|nf|w)(\d+)", method.lower())
    return int(found[1]) if found else None


def refuse_unknown(folder: Path, config: Config) -> None:
    """Raise Unsupported for a type that transformers has no code for, that is no text model, or that we refuse."""
    composite = [name for name, value in config.raw.items() if _PART.match(name) and isinstance(value, Mapping)]
    if composite:
        raise Unsupported(
            f"model.path: {folder} is a composite model ({config.model_type}: {', '.join(sorted(composite))}); only "
            "text models are searched: save its text model (model.get_decoder, language_model) as a folder of its own"
        )
    if config.model_type not in model_types():
        raise Unsupported(_unknown(folder, config))
    reason = families.refusal(config.model_type)
    if reason is not None:
        raise Unsupported(f"model.path: {reason}")
    if not any(builds(config.model_type, kind) for kind in _TEXT):
        raise Unsupported(
            f"model.path: {folder} is no text model: transformers {installed()} has no language model of type "
            f"{config.model_type!r}"
        )


def _unknown(folder: Path, config: Config) -> str:
    named = f"model.path: {folder}: transformers {installed()} knows no model type {config.model_type!r}"
    if config.raw.get("auto_map"):
        return (
            f"{named}, and code that comes with a checkpoint (auto_map, trust_remote_code) is never run: it may do "
            "anything to this machine; give a checkpoint that transformers itself describes"
        )
    near = difflib.get_close_matches(config.model_type, list(model_types()), n=1, cutoff=0.5)
    alike = next(iter(near), families.relative(config.model_type, config.raw))
    nearest = f" (nearest: {alike})" if alike else ""
    known = ", ".join(sorted(families.FAMILIES))
    return (
        f"{named}{nearest}; a newer transformers may. Described here: {known}; a row of your own describes another "
        "(docs/adding_a_family.md)"
    )


def refuse_head(config: Config, head: Head) -> None:
    """Raise ModelError where the checkpoint is of another kind than ``head`` asks for."""
    kind, reason = _kind(config)
    asked = "encoder" if head in ENCODERS else head
    made = next((name for name in config.architectures if name.endswith(tuple(_TRAINED.values()))), "")
    if made and head in _TRAINED and kind != "encoder":
        raise ModelError(
            f"model.head: the checkpoint is a {made}, and {config.model_type} is {_NAMES[kind]} ({reason}): "
            f"classes and spans are scored of encoders alone; give an encoder with a head for {head}"
        )
    if kind != asked and not (head == "encoder" and kind == "causal_lm"):  # embeddings of a decoder are legitimate
        raise ModelError(f"model.head: {config.model_type} is {_NAMES[kind]} here ({reason}): model={kind}, got {head}")
    if head != "encoder" and not builds(config.model_type, _TABLES[head]):
        raise ModelError(f"model.head: transformers {installed()} has no {head} model of type {config.model_type!r}")
    if head == "seq2seq" and not config.get("is_encoder_decoder"):
        raise ModelError(
            f"model.path: config.json says is_encoder_decoder false, and {config.model_type} has both halves: without "
            "it they share one cache and answer otherwise than they were trained to; set it to true"
        )
    if head in _TRAINED:
        _require_trained(config, head)
    other = next((name for name in config.architectures if _ANSWERS.search(name)), None)
    if head not in ENCODERS and other is not None:
        raise ModelError(
            f"model.head: the checkpoint is a {other} (architectures in config.json), whose next-token head is not "
            f"trained; give the language model, got {head}"
        )


def _require_trained(config: Config, head: Head) -> None:
    """Raise ModelError where config.json names an architecture without the head: it would be made up."""
    ending = _TRAINED[head]
    if config.architectures and not any(name.endswith(ending) for name in config.architectures):
        there = next((one for one, end in _TRAINED.items() if config.architectures[0].endswith(end)), "encoder")
        raise ModelError(
            f"model.head: the checkpoint is a {config.architectures[0]} (architectures in config.json), no "
            f"...{ending}: its head for {head} is not trained; model={there}, or a fine-tuned checkpoint"
        )


_TABLES: Mapping[Head, str] = {
    "causal_lm": "CAUSAL_LM",
    "seq2seq": "SEQ_TO_SEQ_CAUSAL_LM",
    "classifier": "SEQUENCE_CLASSIFICATION",
    "token_classifier": "TOKEN_CLASSIFICATION",
    "question_answering": "QUESTION_ANSWERING",
}
"""The tables in which transformers keeps the classes of each head."""
_TRAINED: Mapping[Head, str] = {
    "classifier": "ForSequenceClassification",
    "token_classifier": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
}
"""The endings of the architectures that have an encoder's own head."""


def head_of(config: Config) -> Head:
    """Return the head that the checkpoint was made for: an encoder's own where its architecture has one."""
    kind = _kind(config)[0]
    own = (head for head, ending in _TRAINED.items() if any(name.endswith(ending) for name in config.architectures))
    return next(own, kind) if kind == "encoder" else kind


_NAMES: Mapping[Head, str] = {"causal_lm": "a decoder", "encoder": "an encoder", "seq2seq": "an encoder-decoder"}


def _kind(config: Config) -> tuple[Head, str]:
    """Return the head that the checkpoint was made for, and the reason in words."""
    both, decoder = config.get("is_encoder_decoder"), config.get("is_decoder")
    if both is None:
        both = builds(config.model_type, "SEQ_TO_SEQ_CAUSAL_LM")
    if both:
        return "seq2seq", "is_encoder_decoder true"
    if builds(config.model_type, "MASKED_LM") and not decoder and not config.get("causal"):
        said = "is_decoder false" if config.declares("is_decoder") else "a masked language model"
        return "encoder", said
    if builds(config.model_type, "CAUSAL_LM"):
        return "causal_lm", "is_encoder_decoder false"
    if builds(config.model_type, "SEQ_TO_SEQ_CAUSAL_LM"):
        return "seq2seq", "transformers builds it with both halves"
    return "encoder", "transformers builds no next-token head for it"
