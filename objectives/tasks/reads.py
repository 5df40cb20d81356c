"""Records which files this process opens to read: Python tells of each by an audit event, whatever library opens it.

Files that a library opens in C, C++ or Rust by itself raise no event. The module is free of torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from objectives.assets.store import cache_dir
from objectives.tasks.provenance import Kind, Source, file_hash, is_below, is_installed

_SYSTEM = ("/proc", "/sys", "/etc", "/usr/lib", "/usr/share/zoneinfo")
"""Folders of the system, whose files are no data. /dev and /run are absent: somebody may keep data below them."""


class Reads:
    """The files that this process opened to read while it was :meth:`watched`, and that it had not written before."""

    def __init__(self) -> None:
        self._opened: dict[str, None] = {}
        self._written: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the files that any thread opens meanwhile."""
        _add_hook()
        _listening.append(self)
        try:
            yield
        finally:
            _listening.remove(self)

    def hear(self, path: str, writes: bool) -> None:
        """Note one file; a file that was written here first is no input."""
        if writes:
            self._written.add(path)
        elif path not in self._written:
            self._opened.setdefault(path)

    def hold(self, files: Mapping[str, str]) -> bool:
        """Return whether ``files`` (hash by path) are unchanged; if so, they count as read here too."""
        if not all(os.path.isfile(path) and file_hash(path) == held for path, held in files.items()):
            return False
        for path in files:
            self.hear(path, writes=False)
        return True

    def sources(self, without: Iterable[Path] = ()) -> list[Source]:
        """Return the files that are data: they belong to no installation, cache, module or folder in ``without``.

        They are named from the working directory where they lie below it.
        """
        spared = {os.path.realpath(folder) for folder in without}
        modules = {path for module in list(sys.modules.values()) for path in _files_of(module)}
        found = []
        for path in self._opened:
            real = os.path.realpath(path)
            if os.path.isfile(path) and path not in modules and not _is_spared(path, real, spared):
                found.append(Source(Kind.DATA, _named(path), file_hash(path), path))
        return found


def _named(path: str) -> str:
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


def _files_of(module: Any) -> list[str]:
    found = (getattr(module, name, None) for name in ("__file__", "__cached__"))
    return [os.path.abspath(path) for path in found if isinstance(path, str)]


def _is_spared(path: str, real: str, spared: set[str]) -> bool:
    roots = {*spared, *_SYSTEM, str(cache_dir()), str(Path(__file__).resolve().parent)}
    hidden = os.path.expanduser("~") + os.sep + "."  # caches and settings of tools
    return any(is_below(each, roots) or is_installed(each) or each.startswith(hidden) for each in (path, real))


_listening: list[Reads] = []
"""Audit hooks stay for the life of a process; ours does nothing while this list is empty."""


@lru_cache(maxsize=1)
def _add_hook() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what an audit event opens; it must not raise, as the opening would fail."""
    if not _listening or event not in ("open", "sqlite3.connect"):
        return
    try:
        path = os.fspath(arguments[0])
        path = os.path.abspath(os.fsdecode(path))
        writes = event == "open" and _writes(arguments)
    except (TypeError, ValueError, OSError, IndexError):  # a descriptor, or no path at all
        return
    for reads in tuple(_listening):
        reads.hear(path, writes)


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return not {"w", "a", "x"}.isdisjoint(mode)
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY
