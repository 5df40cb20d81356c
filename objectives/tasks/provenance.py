"""Lists the sources of a study's scores: the checkpoint, data, a user's code, and the rows made of them.

A :class:`Source` is a name with a hash. The sources of the checkpoint are the files that transformers reads. Data are
the files that a user's code opens to read while calibration rows are made and the baseline is scored; Python tells of
each by an audit event, whatever library opens it in Python. Files that a library opens in C, C++ or Rust by itself
raise no event. Their content is seen only in the texts of a corpus and in the calibration rows, which are sources too.
The code is the modules of classes that are not ours, and the modules beside them. This module is free of torch.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

from objectives.content_hash import sha256, texts_hash
from objectives.protocols.corpus import Corpus
from objectives.settings import class_path

_OURS = ("objectives", "search")
_CHECKPOINT = (
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.*",
    "merges.txt", "bpe.codes", "*.spm", "*.bpe.model", "spiece.model", "spm.model", "special_tokens_map.json",
    "added_tokens.json", "chat_template*",
)  # fmt: skip
"""The files of a checkpoint's folder that loading reads, whatever the tokenizer's class."""


class Kind(StrEnum):
    """The kind of a source, the most telling first."""

    MODEL = "model"
    DATA = "data"
    CODE = "code"
    TEXTS = "texts"
    ROWS = "rows"


_FILES = (Kind.MODEL, Kind.DATA, Kind.CODE)


@dataclass(frozen=True)
class Source:
    """A source of scores, with its hash.

    ``name``: a file of the checkpoint, a path, a module, a corpus or a domain; ``path``: absolute, where it is a file.
    """

    kind: Kind
    name: str
    sha256: str
    path: str = ""

    @property
    def key(self) -> tuple[Kind, str]:
        """Return kind and name, by which a source is the same at another time."""
        return self.kind, self.name

    @property
    def label(self) -> str:
        """Return the name for a person: that of the file without its folder, where there is one."""
        return Path(self.path).name if self.path else self.name


class How(StrEnum):
    """The change of a source since the study was begun."""

    CHANGED = "changed"
    GONE = "is gone"
    NEW = "is new"


@dataclass(frozen=True)
class Change:
    """A source that is not as it was, and how it changed."""

    source: Source
    how: How


def changes(stored: Sequence[Source], now: Sequence[Source]) -> list[Change]:
    """Return how ``now`` differs from ``stored``: the changes of files, or where no file changed, all others.

    A file that was not read yet is looked up where it was. New data and new code are no change, since what they add
    shows in texts and rows. A new file of the checkpoint is a change, as loading reads it.
    """
    current = {source.key: source for source in now}
    changed = [change for source in stored if (change := _change(source, current.get(source.key)))]
    known = {source.key for source in stored}
    if any(source.kind is Kind.MODEL for source in stored):
        new = (source for source in now if source.kind is Kind.MODEL and source.key not in known)
        changed += [Change(source, How.NEW) for source in new]
    files = [change for change in changed if change.source.kind in _FILES]
    return files or changed


def _change(stored: Source, now: Source | None) -> Change | None:
    if now is None and stored.kind in (Kind.DATA, Kind.CODE):
        file = next((path for path in (stored.path, stored.name) if os.path.isfile(path)), None)
        now = None if file is None else Source(stored.kind, stored.name, file_hash(file))
    if now is None:
        return Change(stored, How.GONE)
    return None if now.sha256 == stored.sha256 else Change(stored, How.CHANGED)


def merged(stored: Sequence[Source], now: Sequence[Source]) -> list[Source]:
    """Return the sources of both, each once; where both have one, as it was stored."""
    current = {source.key: source for source in now}
    return list({**current, **{source.key: source for source in stored}}.values())


def file_hash(path: str) -> str:
    """Return the SHA-256 of a file, which is read again only when its size or time of change differs."""
    facts = os.stat(path)
    return _file_hash(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: str, _size: int, _changed: int, _touched: int) -> str:
    return sha256(Path(path))


# ---- the checkpoint


def checkpoint_sources(folder: Path, more: Iterable[str] = ()) -> list[Source]:
    """Return the files of a checkpoint that loading reads; ``more``: names that its tokenizer's class adds."""
    patterns = (*_CHECKPOINT, *more)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    read = [file.absolute() for file in files if any(fnmatch(file.name, pattern) for pattern in patterns)]
    return [Source(Kind.MODEL, file.name, file_hash(str(file)), str(file)) for file in read]


# ---- own code


def parts_of(value: Any, where: str, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield ``value`` and all objects that its fields hold, each once, after their dotted places."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (type, str, bytes, int, float, type(None))):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        inside = {f"{where}.{name}": item for name, item in value.items()}
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside = {f"{where}[{place}]": item for place, item in enumerate(value)}
    else:
        yield where, value
        inside = {f"{where}.{name}": item for name, item in _held(value).items()}
    for place, item in inside.items():
        yield from parts_of(item, place, seen)


def own_classes(value: Any) -> list[type]:
    """Return the classes of ``value`` and of what its fields hold that are not of this package or a library."""
    return list(dict.fromkeys(type(part) for _, part in parts_of(value, "") if not _is_common(type(part))))


def own_code(value: Any) -> list[type | FunctionType]:
    """Return the classes of ``own_classes``, and the functions that fields hold, but for ours and libraries'."""
    functions = (part for _, part in parts_of(value, "") if isinstance(part, FunctionType) and not _is_common(part))
    return list(dict.fromkeys([*own_classes(value), *functions]))


def _is_common(kind: type | FunctionType) -> bool:
    """Return whether a class or function is ours, Python's or a library's."""
    top = kind.__module__.partition(".")[0]
    return top in (*_OURS, "builtins") or top in sys.stdlib_module_names or is_installed(_file_of(top))


def _held(value: Any) -> Mapping[str, Any]:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return {} if _is_common(type(value)) else getattr(value, "__dict__", {})


def code_sources(own: Iterable[type | FunctionType]) -> list[Source]:
    """Return the modules of classes and functions, and those that are loaded from the same folders, by name."""
    tops = {kind.__module__.partition(".")[0] for kind in own}
    folders = {str(Path(file).parent) for top in tops if (file := _file_of(top))}
    folders = {str(Path(folder).parent) if Path(folder).name in tops else folder for folder in folders}
    found = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if not isinstance(file, str) or not os.path.isfile(file) or top in (*_OURS, "__main__", "__mp_main__"):
            continue
        beside = is_below(os.path.abspath(file), folders) and not is_installed(file)
        if top in tops or beside:
            path = os.path.abspath(file)
            found.append(Source(Kind.CODE, name, file_hash(path), path))
    return found


def _file_of(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else None


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [sysconfig.get_paths().get(name) for name in names]
    found += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages", "lib-dynload")]
    found += [path for path in sys.path if path.endswith(".zip")]
    kept = [path for path in found if path]
    return frozenset([*kept, *map(os.path.realpath, kept)])


def is_installed(path: str | None) -> bool:
    """Return whether ``path`` belongs to Python or an installed package, as None does."""
    return path is None or is_below(os.path.abspath(path), _installed())


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Return whether ``path`` is one of ``folders`` or lies below one."""
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


# ---- what is made of them


def text_sources(task: Any, where: str = "task") -> list[Source]:
    """Return the texts of every corpus inside ``task``, named by its place and class."""
    found = []
    for place, part in parts_of(task, where):
        if isinstance(part, Corpus) and callable(part.documents):  # a number of documents is none
            name = f"texts of {place} ({class_path(part)})"
            found.append(Source(Kind.TEXTS, name, texts_hash(part)))
    return found


def row_sources(rows: Mapping[str, str]) -> list[Source]:
    """Return the calibration rows as sources, given their hash by domain."""
    return [Source(Kind.ROWS, f"calibration rows of {domain}", held) for domain, held in rows.items()]


def rows_hash(shapes: Sequence[Sequence[int | str]], contents: Iterable[bytes]) -> str:
    """Return the SHA-256 of token batches, given their shapes and bytes."""
    hashed = hashlib.sha256(repr([list(shape) for shape in shapes]).encode())
    for content in contents:
        hashed.update(content)
    return hashed.hexdigest()
