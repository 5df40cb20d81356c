"""Makes the requests of a load: random token ids of fixed lengths, or a user's own from a jsonl file.

A row of such a file has a prompt as ``prompt`` (a text), ``messages`` (as in OpenAI's chats) or ``prompt_tokens`` (a
list of ids, or a number: so many random ids), and ``output_tokens`` (or a name in :data:`_LENGTHS`) where its answer
has a length of its own. Texts become ids by the model's tokenizer, so every server reads the same.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from objectives.errors import DataError, ObjectiveError

_PROMPTS = ("prompt", "messages", "prompt_tokens")
_LENGTHS = (
    "output_tokens", "max_tokens", "max_completion_tokens", "completion_tokens", "max_new_tokens", "output_len",
    "output_length", "n_predict",
)  # fmt: skip
"""The names that files give the length of an answer: ours, and those of OpenAI, transformers, vLLM and llama.cpp."""
_OTHERS = ("min_tokens", "input_tokens", "message", "prompt_id")
"""Names near ours that mean something else."""
_FIRST = 3
"""The first id that random prompts use: special tokens come before in most vocabularies."""


@dataclass(frozen=True)
class Request:
    """A request: token ids to read, and the number of tokens to write."""

    prompt: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True)
class Row:
    """A row of a user's file: one of a text, a conversation or ids, or the number of ``random`` ids."""

    output_tokens: int | None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    ids: tuple[int, ...] | None = None
    random: int | None = None


def random_requests(
    count: int, prompt_tokens: int, output_tokens: int, tokenizer: Any, vocabulary: int, seed: str
) -> list[Request]:
    """Return ``count`` requests with random ids, none of them special, the same ones for the same ``seed``."""
    draw, plain = random.Random(seed), _plain_ids(tokenizer, vocabulary)
    return [Request(tuple(draw.choices(plain, k=prompt_tokens)), output_tokens) for _ in range(count)]


def _plain_ids(tokenizer: Any, vocabulary: int) -> Sequence[int]:
    special = {*getattr(tokenizer, "all_special_ids", ())}
    every = range(min(_FIRST, vocabulary - 1), vocabulary)
    return [each for each in every if each not in special] or every


def requests_of(
    rows: Sequence[Row], count: int, output_tokens: int, tokenizer: Any, vocabulary: int, seed: str
) -> list[Request]:
    """Return ``count`` requests from the rows of a file, from the first one again after the last.

    ``output_tokens``: for rows that do not say. Raises DataError for texts where the model has no tokenizer.
    """
    draw, plain = random.Random(seed), _plain_ids(tokenizer, vocabulary)
    found = []
    for place in range(count):
        row = rows[place % len(rows)]
        ids = tuple(draw.choices(plain, k=row.random)) if row.random else _ids(row, tokenizer)
        if not ids or max(ids) >= vocabulary:
            what = f"id {max(ids)}, and the model has {vocabulary}" if ids else "a text without tokens"
            raise DataError(f"workload.requests: row {place % len(rows) + 1} has {what}")
        found.append(Request(ids, row.output_tokens or output_tokens))
    return found


def _ids(row: Row, tokenizer: Any) -> tuple[int, ...]:
    if row.ids is not None:
        return row.ids
    if tokenizer is None:
        raise DataError("workload.requests: this model has no tokenizer: give prompt_tokens instead of texts")
    if row.messages is None:
        return tuple(tokenizer(row.text).input_ids)
    if not getattr(tokenizer, "chat_template", None):
        raise DataError("workload.requests: the tokenizer has no chat template: give prompt instead of messages")
    said = [dict(message) for message in row.messages]
    asked = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    try:
        return tuple(tokenizer.apply_chat_template(said, **asked)["input_ids"])
    except Exception as error:  # a template is a program of the model's: it may raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"workload.requests: the chat template refuses {json.dumps(said)[:120]}: {what}") from error


def read_rows(file: str) -> tuple[Row, ...]:
    """Read the rows of a jsonl file. Raises DataError that names the line."""
    path = Path(file).expanduser()
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"workload.requests: cannot read {file}: {error.strerror}") from error
    return _read(path, state.st_mtime_ns, state.st_size)


def content_hash(file: str) -> str:
    """Return the SHA-256 of a file of requests. Raises DataError."""
    try:
        return hashlib.sha256(Path(file).expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"workload.requests: cannot read {file}: {error.strerror}") from error


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int, _size: int) -> tuple[Row, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # texts may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"workload.requests: cannot read {path}: {error}") from error
    rows = tuple(_row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip())
    if not rows:
        raise DataError(f"workload.requests: {path} has no rows; one is {json.dumps(_EXAMPLE)}")
    return rows


_EXAMPLE = {"prompt": "Name three rivers.", "output_tokens": 32}


def _row(line: str, where: str) -> Row:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()  # JSON can spell halves of characters, which are no text
    except (ValueError, RecursionError) as error:
        raise DataError(f"workload.requests: {where}: no JSON: {error}") from error
    _require_known(found, where)
    given = [name for name in _PROMPTS if isinstance(found, dict) and found.get(name) is not None]
    if len(given) != 1:
        raise DataError(
            f"workload.requests: {where}: one of {', '.join(_PROMPTS)} expected, got {', '.join(given) or line[:60]}"
        )
    name = next((name for name in _LENGTHS if found.get(name) is not None), "")
    length = found.get(name)
    if length is not None and not _is_count(length):
        raise DataError(f"workload.requests: {where}: {name} must be an integer >= 1, got {length!r}")
    return _prompted(given[0], found[given[0]], length, where)


def _require_known(found: Any, where: str) -> None:
    """Raise DataError for a row with a misspelt field; fields of other names are somebody else's."""
    known = (*_PROMPTS, *_LENGTHS)
    for name in found if isinstance(found, dict) else ():
        meant = [] if name in (*known, *_OTHERS) else get_close_matches(name, known, n=1, cutoff=0.8)
        if meant:
            raise DataError(f"workload.requests: {where}: unknown field {name!r}; did you mean {meant[0]}?")


def _prompted(name: str, prompt: Any, length: int | None, where: str) -> Row:
    if name == "prompt" and isinstance(prompt, str) and prompt:
        return Row(length, text=prompt)
    if name == "messages" and _are_messages(prompt):
        return Row(length, messages=tuple(prompt))
    if name == "prompt_tokens" and _is_count(prompt):
        return Row(length, random=prompt)
    if name == "prompt_tokens" and isinstance(prompt, list) and prompt and all(map(_is_id, prompt)):
        return Row(length, ids=tuple(prompt))
    wanted = {"prompt": "a text", "messages": "a list of {role, content}", "prompt_tokens": "ids or their number"}
    raise DataError(f"workload.requests: {where}: {name} must be {wanted[name]}, got {str(prompt)[:60]!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "role" in one for one in value)


def longest(rows: Sequence[Row], prompt_tokens: int, output_tokens: int) -> tuple[int, int]:
    """Return prompt and answer of the longest of ``rows``, in tokens, before texts are read.

    ``prompt_tokens``: what a text may have at most; ``output_tokens``: for rows that do not say.
    """
    prompts = [row.random or (len(row.ids) if row.ids is not None else prompt_tokens) for row in rows]
    return max(zip(prompts, (row.output_tokens or output_tokens for row in rows)), key=sum)


def require_lengths(requests: Sequence[Request], most: int) -> None:
    """Raise ObjectiveError for a request longer than a server's slots hold."""
    longest_one = max(len(request.prompt) + request.output_tokens for request in requests)
    if longest_one > most:
        raise ObjectiveError(
            f"workload.requests: a request has {longest_one} tokens with its answer, the server's slots hold {most}: "
            f"workload.prompt_tokens={max(len(request.prompt) for request in requests)} raises that"
        )
