"""Makes texts from outside inert: names of models, paths, errors and keys cannot steer a terminal, a table or a page.

Control characters, marks that reverse the direction of writing, and characters without width are shown as their escapes
(``\\x1b``, ``\\u202e``). All our output passes through here, so that a name stays a name, and a secret a secret.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from search.records.secrets import scrubbed

T = TypeVar("T")

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories: control, format (direction and no width), half of a character, ends of lines and paragraphs."""

_SUSPECT = re.compile("[\x00-\x08\x0b-\x1f\x7f]|[^\x00-\x7f]")
"""Characters to look up: all control characters but tab and newline, and all beyond ASCII."""


def inert(text: str) -> str:
    """Return ``text`` with every character that steers a display shown as its escape; tab and newline stay.

    Secrets are hidden.
    """
    return _SUSPECT.sub(_escaped, scrubbed(text))


def one_line(text: str) -> str:
    """Return ``text`` inert and on one line."""
    return inert(" ".join(text.split()))


def inert_json(text: str) -> str:
    """Return the JSON document ``text`` inert, and with the same content: JSON has escapes of its own."""
    text = scrubbed(text)
    return _SUSPECT.sub(lambda found: json.dumps(found[0])[1:-1] if _steers(found[0]) else found[0], text)


def inert_tree(value: T) -> T:
    """Return a copy of nested dataclasses, mappings and sequences whose texts, keys too, are inert."""
    return _inert_tree(value)  # type: ignore[no-any-return]


def _inert_tree(value: Any) -> Any:
    if isinstance(value, str):
        return inert(value) if type(value) is str else value  # members of an enum are ours
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _inert_tree(getattr(value, f.name)) for f in fields(value) if f.init})
    if isinstance(value, Mapping):
        return {_inert_tree(key): _inert_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_inert_tree, value))
    return value


class InertFormatter(logging.Formatter):
    """Formats log records as inert text; lines of a traceback stay lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Format as ``logging.Formatter`` does, then take the steering out."""
        return inert(super().format(record))


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _STEERING


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if not _steers(character):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
