"""Describes a Hugging Face tokenizer in the words of GGUF: vocabulary, merges, kinds of tokens, chat template.

llama.cpp knows two algorithms of byte-pair encoding. One works on bytes; a named pattern cuts a text into words first.
The other is SentencePiece's, whose merges are scores of tokens. What a tokenizer of Hugging Face does is read from its
own description (``tokenizer.json``); what llama.cpp has no name for is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from objectives.errors import Unsupported

if TYPE_CHECKING:
    from gguf import GGUFWriter

_DIGIT = r"\p{N}"
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = _ENDINGS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_QWEN_2 = _ENDINGS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_QWEN_3_5 = _ENDINGS + r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|"
_TEKKEN = f"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*|{_DIGIT}|{_SIGNS}{_SPACES}"
_GPT_4O = (
    f"{_WORD}{_UPPER}*{_LOWER}+{_ENDINGS[:-1]}?|{_WORD}{_UPPER}+{_LOWER}*{_ENDINGS[:-1]}?|"
    rf"\p{{N}}{{1,3}}|{_SIGNS}{_SPACES}"
)

PATTERNS: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((_GPT_2,), False): "gpt-2",
    ((_DIGIT, _GPT_2), False): "smollm",
    ((_LLAMA_3,), True): "llama-bpe",
    ((_LLAMA_3,), False): "smaug-bpe",
    ((_QWEN_2,), False): "qwen2",
    ((_QWEN_3_5,), False): "qwen35",
    ((_TEKKEN,), True): "tekken",
    ((_GPT_4O,), False): "gpt-4o",
}
"""llama.cpp's name of what cuts a text into words: by patterns, and whether a word that is a token stays whole."""

_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTES = range(1, 7)
_IDS = ("bos", "eos", "unk", "pad", "sep")


class Limit(Enum):
    """Texts that llama.cpp splits otherwise, whatever a file says; the value is a sentence for people."""

    COMPOSED = "this tokenizer reads texts in Unicode's composed form (NFC); llama.cpp reads them as they come"
    LEADING_SPACE = "llama.cpp puts one more space before a text that begins with a space"
    AFTER_SPECIAL = "llama.cpp puts a space after a special token inside a text"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a GGUF file describes it.

    ``kind``: ``gpt2`` or ``llama``; ``pattern``: the name of what cuts a text into words, of ``gpt2`` alone; ``scores``
    of ``llama`` alone; ``special``: ids by GGUF's names; ``adds``: which of ``bos``, ``eos`` and ``space`` come to
    every text; ``limits``: the texts that llama.cpp reads otherwise.
    """

    kind: str
    pattern: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    scores: Sequence[float]
    special: Mapping[str, int]
    adds: Mapping[str, bool]
    chat_template: str | None
    limits: Sequence[Limit]

    def add_to(self, writer: GGUFWriter) -> None:
        """Write it into the header of a file."""
        writer.add_tokenizer_model(self.kind)
        writer.add_tokenizer_pre(self.pattern)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.kinds))
        if self.kind == "gpt2":
            writer.add_token_merges(list(self.merges))
        else:
            writer.add_token_scores(list(self.scores))
        for name, token in self.special.items():
            getattr(writer, f"add_{name}_token_id")(token)
        writer.add_add_bos_token(self.adds["bos"])
        writer.add_add_eos_token(self.adds["eos"])
        writer.add_add_space_prefix(self.adds["space"])
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """Describe ``tokenizer`` for a model with ``size`` token ids. Raises Unsupported where llama.cpp has no such."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Unsupported(f"format=gguf: {type(tokenizer).__name__} has no tokenizer.json, from which it is written")
    said = json.loads(backend.to_str())
    model, composed = said["model"], (said["normalizer"] or {}).get("type") == "NFC"
    if model["type"] != "BPE":
        raise Unsupported(f"format=gguf: llama.cpp is given byte-pair encodings here, this one is {model['type']}")
    by_bytes, limits = not model["byte_fallback"], [Limit.COMPOSED] if composed else []
    pattern, space = (_pattern(said, composed), False) if by_bytes else ("default", _adds_space(said))
    if space and said["pre_tokenizer"]:  # this way of adding spaces looks at what is there
        limits += [Limit.LEADING_SPACE, Limit.AFTER_SPECIAL]
    tokens, kinds = _tokens(tokenizer, said, size)
    merges = [_joined(merge) for merge in model["merges"]]
    template = getattr(tokenizer, "chat_template", None)
    return Vocabulary(
        kind="gpt2" if by_bytes else "llama",
        pattern=pattern,
        tokens=tokens,
        kinds=kinds,
        merges=merges,
        scores=[] if by_bytes else _scores(tokens, merges),
        special={
            name: int(each) for name in _IDS if (each := getattr(tokenizer, f"{name}_token_id", None)) is not None
        },
        adds={**_ends(tokenizer), "space": space},
        chat_template=template if isinstance(template, str) else None,
        limits=limits,
    )


def _joined(merge: str | Sequence[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(merge)


def _pattern(said: Mapping[str, Any], composed: bool) -> str:
    """Return llama.cpp's name of the way in which ``said`` cuts a text into words. Raises Unsupported."""
    cutter = said["pre_tokenizer"] or {}
    parts = cutter.get("pretokenizers", [cutter])
    patterns = [pattern for part in parts for pattern in _patterns(part)]
    known = PATTERNS.get((tuple(patterns), bool(said["model"].get("ignore_merges"))))
    if known is None or not (composed or said["normalizer"] is None):
        raise Unsupported(
            "format=gguf: llama.cpp has no name for how this tokenizer cuts texts into words; known here are "
            f"{', '.join(PATTERNS.values())}"
        )
    return known


def _patterns(part: Mapping[str, Any]) -> list[str]:
    """Return the patterns of a pre-tokenizer, as a regular expression each; what has none is its own description."""
    if part.get("type") == "ByteLevel" and not part["add_prefix_space"]:
        return [_GPT_2] if part["use_regex"] else []
    if part.get("type") == "Digits" and part["individual_digits"]:
        return [_DIGIT]
    pattern = part.get("pattern", {}).get("Regex")
    if part.get("type") == "Split" and pattern and part["behavior"] in ("Isolated", "Removed"):
        is_inverted = part["behavior"] == "Removed"
        return [pattern] if is_inverted == bool(part["invert"]) else [json.dumps(part)]
    return [json.dumps(part)]


def _adds_space(said: Mapping[str, Any]) -> bool:
    """Return whether a space comes before every text. Raises Unsupported where spaces are not written as tokens are."""
    normalizer, cutter = said["normalizer"] or {}, said["pre_tokenizer"] or {}
    parts = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = [part["type"] for part in parts]
    replaced = all(part["content"] == _SPACE for part in parts if part["type"] == "Replace")
    if cutter.get("type") == "Metaspace" and cutter["replacement"] == _SPACE and not cutter.get("split") and not parts:
        return bool(cutter["prepend_scheme"] != "never")
    if not cutter and replaced and kinds in (["Prepend", "Replace"], ["Replace"]):
        return "Prepend" in kinds
    raise Unsupported("format=gguf: this tokenizer changes texts in a way that llama.cpp has not")


def _tokens(tokenizer: Any, said: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return the texts and the kinds of all ``size`` tokens; ids without a token are unused."""
    known = {int(place): text for text, place in said["model"]["vocab"].items()}
    added = {int(each["id"]): each for each in said["added_tokens"]}
    if max((*known, *added)) >= size:
        raise Unsupported(f"format=gguf: the tokenizer has ids up to {max((*known, *added))}, the model {size} of them")
    tokens = [
        added[place]["content"] if place in added else known.get(place, f"[UNUSED{place}]") for place in range(size)
    ]
    unknown = said["model"].get("unk_token")
    kinds = []
    for place, text in enumerate(tokens):
        if text == unknown:
            kinds.append(_UNKNOWN)
        elif place in added:
            kinds.append(_CONTROL if added[place]["special"] else _USER)
        elif place not in known:
            kinds.append(_UNUSED)
        else:
            kinds.append(_BYTES if said["model"]["byte_fallback"] and _BYTE.fullmatch(text) else _NORMAL)
    return tokens, kinds


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Return a score for every token: the earlier it is merged, the higher.

    SentencePiece merges the pair whose token has the highest score, byte-pair encoding the pair that comes first. Both
    are the same where the merges are in the order of their tokens.
    """
    first: dict[str, int] = {}
    for place, merge in enumerate(merges):
        first.setdefault(merge.replace(" ", "", 1), place)
    return [-float(first.get(token, len(merges))) for token in tokens]


def _ends(tokenizer: Any) -> dict[str, bool]:
    """Return whether the first and the last token of every text are set. Raises Unsupported where others are."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a").input_ids
    for bos in (False, True):
        for eos in (False, True):
            start = [tokenizer.bos_token_id] if bos else []
            if [*start, *bare, *([tokenizer.eos_token_id] if eos else [])] == whole:
                return {"bos": bos, "eos": eos}
    raise Unsupported(
        f"format=gguf: this tokenizer frames texts otherwise than by its first and last token: {whole} of {bare}"
    )
