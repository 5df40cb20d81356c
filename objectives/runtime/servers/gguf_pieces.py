"""Copies a GGUF file and puts in the pieces of text of its tokens, which a server needs to answer.

The copy has the whole tokenizer where GGUF can describe it (:mod:`objectives.runtime.formats.gguf_vocabulary`), so
other clients may send texts. Ours send token ids, so the pieces alone will do for any other. Which of both ways of
writing pieces a tokenizer has, bytes as letters or spaces as low lines, is read from its decoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from objectives.errors import Unsupported
from objectives.runtime.formats.gguf_vocabulary import vocabulary_of

_KIND = "tokenizer."
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
"""Kinds of tokens, as GGUF numbers them."""


def write_with_pieces(file: Path, new: Path, tokenizer: Any, vocabulary: int) -> None:
    """Copy ``file`` to ``new`` with ``tokenizer``, or with its pieces; ids without one get a piece nobody writes.

    Raises Unsupported where the tokenizer does not say how it writes pieces.
    """
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(file)
    writer = GGUFWriter(new, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith((_KIND, "GGUF.")) or name == "general.architecture":
            continue
        inner = field.types[1] if field.types[0] is GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    try:
        vocabulary_of(tokenizer, vocabulary).add_to(writer)
    except Unsupported:
        _add_pieces(writer, tokenizer, vocabulary)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_pieces(writer: Any, tokenizer: Any, vocabulary: int) -> None:
    known: Mapping[str, int] = {} if tokenizer is None else tokenizer.get_vocab()
    pieces = {place: piece for piece, place in known.items()}
    special = set() if tokenizer is None else set(tokenizer.all_special_ids)
    described = _description(tokenizer)
    in_bytes = "ByteLevel" in set(_kinds(described["decoder"]))
    writer.add_tokenizer_model("gpt2" if in_bytes else "llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.get(place, f"[unused{place}]") for place in range(vocabulary)])
    kinds = (_CONTROL if place in special else _NORMAL if place in pieces else _UNUSED for place in range(vocabulary))
    writer.add_token_types(list(kinds))
    if in_bytes:
        merges = described["model"].get("merges") or [["[unused0]", "[unused1]"]]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    else:
        writer.add_token_scores([0.0] * vocabulary)
    writer.add_add_bos_token(False)


def _description(tokenizer: Any) -> Mapping[str, Any]:
    """Return what a fast tokenizer says of itself; without one, that bytes are written as letters (GPT-2's way)."""
    if tokenizer is None:
        return {"decoder": {"type": "ByteLevel"}, "model": {}}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Unsupported("llama.cpp's server: a tokenizer of this kind does not say how it writes its pieces")
    described: Mapping[str, Any] = json.loads(backend.to_str())
    return described


def _kinds(node: Any) -> Iterator[str]:
    """Yield the types of a decoder and of those that it is made of."""
    if isinstance(node, Mapping):
        if isinstance(node.get("type"), str):
            yield node["type"]
        for inner in node.values():
            yield from _kinds(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _kinds(inner)
