"""Checks that every id that a tokenizer can give has a row in the embedding.

A token that was added and that no text holds does no harm, so only those count that the tokenizer gives by itself: its
vocabulary, and the special tokens that it puts around texts or pads with. The ids of a text are checked where it
is read (:func:`objectives.tasks.partial_scores.require_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from objectives.errors import ModelError
from objectives.models.inspection.config import read_json

_USED = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token")


def refuse_vocabulary(folder: Path, rows: int | None) -> None:
    """Raise ModelError where the tokenizer can give an id beyond the embedding's ``rows``, or cannot be read."""
    if rows is None:
        return
    try:
        highest = max(_ids(folder), default=-1)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"model.path: cannot load {folder}: its tokenizer's files are not as transformers writes them "
            f"({type(error).__name__}: {error}); give the tokenizer that was saved with this model"
        ) from error
    if highest >= rows:
        raise ModelError(
            f"model.path: {folder}: the tokenizer gives ids up to {highest}, the embedding has {rows} rows; "
            "give the tokenizer that was saved with this model"
        )


def _ids(folder: Path) -> Iterator[int]:
    """Yield the ids that the tokenizer can give by itself; none where its files have no plain vocabulary."""
    if (folder / "tokenizer.json").is_file():
        yield from _fast(folder)
    elif (folder / "vocab.json").is_file():
        listed = read_json(folder / "vocab.json")
        yield from (id_ for id_ in listed.values() if isinstance(id_, int)) if isinstance(listed, dict) else ()
    elif (folder / "vocab.txt").is_file():
        with (folder / "vocab.txt").open("rb") as lines:
            yield sum(1 for _ in lines) - 1


def _fast(folder: Path) -> Iterator[int]:
    read = read_json(folder / "tokenizer.json")
    if not isinstance(read, dict):
        raise ModelError(f"model.path: cannot load {folder}: tokenizer.json holds no mapping")
    added = {str(entry.get("content")): entry.get("id") for entry in read.get("added_tokens") or ()}
    by_name: dict[str, Any] = {}
    model = read.get("model") or {}
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        by_name = dict(vocabulary)
    elif isinstance(vocabulary, list):  # of unigrams: pairs of token and score
        by_name = {str(pair[0]): place for place, pair in enumerate(vocabulary) if pair}
    yield from (id_ for name, id_ in by_name.items() if isinstance(id_, int) and name not in added)
    for name in _own_tokens(folder, read):
        id_ = added.get(name)
        if isinstance(id_, int):
            yield id_


def _own_tokens(folder: Path, read: Mapping[str, Any]) -> Iterator[str]:
    """Yield the special tokens that the tokenizer gives by itself."""
    processor = read.get("post_processor") or {}
    listed = [processor, *(processor.get("processors") or ())] if isinstance(processor, Mapping) else []
    for each in listed:
        if isinstance(each, Mapping) and isinstance(each.get("special_tokens"), Mapping):
            yield from map(str, each["special_tokens"])
        yield from (str(each[name][0]) for name in ("cls", "sep") if isinstance(each.get(name), list))
    file = folder / "tokenizer_config.json"
    said = read_json(file) if file.is_file() else {}
    for name in _USED if isinstance(said, Mapping) else ():
        token = said.get(name)
        content = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(content, str):
            yield content
