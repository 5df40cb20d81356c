"""Names results by what they were made from: settings, data, weights, code. Equal content has an equal name.

An object that cannot be described, because it is no dataclass, has no name, and its results are not kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from objectives.protocols.corpus import Corpus
from objectives.protocols.optional import Filed
from objectives.settings import class_path

_PACKAGE = Path(__file__).resolve().parent


class Indescribable(Exception):
    """An object has no content that we know of; the message names its type."""


def digest(*parts: Any) -> str:
    """Return the SHA-256 of ``parts`` as 64 hex digits. Raises Indescribable."""
    text = json.dumps([_described(part) for part in parts], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _described(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Enum):
        return [type(value).__qualname__, value.name]
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_described(item), sort_keys=True) for item in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, FunctionType):
        return _function(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _object(value)
    raise Indescribable(type(value).__qualname__)


def _object(value: Any) -> Any:
    """Return the class, the hash of a user's own source, the settings, and hashes of a corpus's texts and of a file.

    Texts and file count because the same settings may read other files.
    """
    kind = type(value)
    described = {field.name: _described(getattr(value, field.name)) for field in fields(value) if field.compare}
    texts = texts_hash(value) if isinstance(value, Corpus) and callable(value.documents) else None
    file = [value.file_hash()] if isinstance(value, Filed) else []
    return [class_path(kind), _source(kind.__module__, _file(kind)), described, texts, *file]


def _function(value: FunctionType) -> Any:
    """Return the name of a function, and the hash of a user's own source; one that holds values of its own has none."""
    if value.__closure__ is not None or value.__name__ == "<lambda>":
        raise Indescribable(value.__qualname__)
    return [class_path(value), _source(value.__module__, _file(value))]


def texts_hash(corpus: Corpus) -> str:
    """Return the SHA-256 of the documents of ``corpus``, in their order."""
    hashed = hashlib.sha256()
    for document in corpus.documents():
        for text in (str(document.id), document.text, getattr(document, "summary", None) or ""):
            hashed.update(f"{len(text)}:".encode() + text.encode(errors="surrogatepass"))
    return hashed.hexdigest()


def _file(kind: type | FunctionType) -> str:
    try:
        return inspect.getfile(kind)
    except (TypeError, OSError) as error:
        raise Indescribable(kind.__qualname__) from error


@cache
def _source(module: str, file: str) -> str | None:
    """Return the hash of the file of a class or function of another package; :func:`code` covers this one."""
    return None if module.startswith("objectives.") else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def code() -> str:
    """Return the hash of this package's sources: results of another version are other results."""
    hashed = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        hashed.update(file.relative_to(_PACKAGE).as_posix().encode() + file.read_bytes())
    return hashed.hexdigest()
