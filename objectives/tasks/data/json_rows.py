"""Reads jsonl files, an object a line, and json files, a list of objects. The module is free of torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from objectives.tasks.data.rows import Counted, Read, Row, WrongRow
from objectives.tasks.data.txt import text_of

DEPTH = 64
"""Lists and objects of JSON that may lie in each other."""
_TOO_DEEP = f"has lists or objects that lie more than {DEPTH} deep in each other"
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD]")


def read_jsonl(file: Path, name: str) -> Read:
    """Yield the object of every line that is not empty."""
    for number, line in enumerate(text_of(file).split("\n"), start=1):
        if line.strip():
            yield _object(line, name, number)


def read_json(file: Path, name: str) -> Read:
    """Yield the objects of a list. Raises ValueError where there is none."""
    try:
        value, is_suspect = _parsed(text_of(file))
    except RecursionError:
        raise ValueError(f"it {_TOO_DEEP}") from None
    if not isinstance(value, list):
        raise ValueError(f"a list of objects expected, got {type(value).__name__}; one object a line is a .jsonl")
    for number, each in enumerate(value, start=1):
        yield _row(each, name, number, is_suspect, "row")


def _object(line: str, name: str, number: int) -> Row | WrongRow:
    try:
        value, is_suspect = _parsed(line)
    except ValueError as error:
        return WrongRow(name, number, f"is no JSON ({error})")
    except RecursionError:
        return WrongRow(name, number, _TOO_DEEP)
    return _row(value, name, number, is_suspect, "line")


class _Repeating(dict[str, Any]):
    """An object whose text names a key twice; ``twice``: the first such key."""

    twice = ""


def _parsed(text: str) -> tuple[Any, bool]:
    """Return the value of a JSON text, and whether it must be looked through.

    Depth needs brackets, halves of characters need escapes, and of keys that stand twice the parser tells.
    """
    repeating: list[_Repeating] = []
    value = json.loads(text, object_pairs_hook=partial(_object_of, repeating))
    is_deep = text.count("[") + text.count("{") > DEPTH
    return value, bool(repeating) or is_deep or _ESCAPED_HALF.search(text) is not None


def _object_of(repeating: list[_Repeating], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; one that names a key twice is noted in ``repeating``."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    again = _Repeating(found)
    again.twice = next(name for name in names if names.count(name) > 1)
    repeating.append(again)
    return again


def _row(value: Any, name: str, number: int, is_suspect: bool, unit: Counted) -> Row | WrongRow:
    if not isinstance(value, dict):
        reason = f"is a JSON {type(value).__name__}, not an object with columns"
        return WrongRow(name, number, reason, unit)
    if not is_suspect:
        return Row(value, name, number, unit)
    if _is_deeper(value, DEPTH):
        return WrongRow(name, number, _TOO_DEEP, unit)
    twice = next(_repeated(value), None)
    if twice is not None:
        return WrongRow(name, number, f"names the key {twice!r} twice", unit)
    half = _HALF.search(json.dumps(value, ensure_ascii=False))
    if half is not None:
        reason = f"holds half of a surrogate pair (\\u{ord(half[0]):04x}), which is no character"
        return WrongRow(name, number, reason, unit)
    return Row(value, name, number, unit)


def _is_deeper(value: Any, depth: int) -> bool:
    """Return whether lists and objects lie in each other more than ``depth`` deep."""
    if not isinstance(value, (dict, list)):
        return False
    return depth == 0 or any(
        _is_deeper(each, depth - 1) for each in (value.values() if isinstance(value, dict) else value)
    )


def _repeated(value: Any) -> Iterator[str]:
    """Yield the keys that stand twice in an object, at any depth."""
    if isinstance(value, _Repeating):
        yield value.twice
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _repeated(each)
