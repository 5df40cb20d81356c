"""A cache of the results of stages, in a folder that many processes and studies share.

An entry is a file (or, for a compressed model, a folder) named by the content that it was made from
(:mod:`objectives.content_hash`), so it is right or not there: no entry ever becomes stale. It appears
whole, by being renamed into its place. A file begins with the hash of the rest; a file that is torn all the same is
removed, and made again. When all entries are larger than allowed, the least recently used ones are removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Name, Positive

log = logging.getLogger(__name__)

_LOCK = ".lock"
UNFINISHED = ".part-"
_ENTRY, _UNFINISHED = re.compile(r"[0-9a-f]{64}"), re.compile(rf"{re.escape(UNFINISHED)}[a-z0-9_]{{8}}")
"""The names of entries, and of folders in which one is written; whatever else lies there is somebody's, and stays."""
_ABANDONED = 24 * 3600.0
"""Seconds after which nobody writes to an unfinished entry any more."""


@settings(frozen=True, kw_only=True, config=FORBID)
class Cache:
    """A folder of results. ``folder``: its path; ``max_bytes``: the most that all entries together may take."""

    folder: Name
    max_bytes: Positive = 4e9

    def get(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return the value that :meth:`put` stored; None where there is none."""
        path = self._path(stage, key)
        try:
            head, _, body = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if head.decode(errors="replace") != hashlib.sha256(body).hexdigest():
            log.warning("the cache's entry %s is damaged and will be made again", path)
            self.drop(stage, key)
            return None
        self._touch(path)
        value: dict[str, Any] = json.loads(body)
        return value

    def put(self, stage: str, key: str, value: Mapping[str, Any]) -> None:
        """Store ``value``, which JSON must hold exactly; where the cache cannot be written to, warn and go on."""
        body = json.dumps(value, allow_nan=False).encode()

        def write(part: Path) -> None:
            part.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

        self._place(stage, key, write)

    def folder_of(self, stage: str, key: str) -> Path | None:
        """Return the folder that :meth:`put_folder` stored; None where there is none."""
        path = self._path(stage, key)
        if not path.is_dir():
            return None
        self._touch(path)
        return path

    def put_folder(self, stage: str, key: str, write: Callable[[Path], object]) -> None:
        """Store the file or folder that ``write`` makes at the path that it is given."""
        self._place(stage, key, write)

    def drop(self, stage: str, key: str) -> None:
        """Remove an entry."""
        _remove(self._path(stage, key))

    def _path(self, stage: str, key: str) -> Path:
        return Path(self.folder) / stage / key

    @staticmethod
    def _touch(path: Path) -> None:
        with suppress(OSError):  # gone, or not ours: it counts as old then
            os.utime(path)

    def _place(self, stage: str, key: str, write: Callable[[Path], object]) -> None:
        final = self._path(stage, key)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=final.parent, prefix=UNFINISHED, ignore_cleanup_errors=True
            ) as scratch:
                part = Path(scratch) / "entry"
                write(part)
                if part.is_dir() and final.exists():
                    return  # another process was faster; equal names, equal content
                os.replace(part, final)
            self._shrink()
        except OSError as error:
            if error.errno not in _TAKEN:
                log.warning("cannot write to the cache %s: %s", self.folder, error)

    def _shrink(self) -> None:
        """Remove the least recently used entries until the rest is small enough, one process at a time."""
        try:
            with FileLock(str(Path(self.folder) / _LOCK), timeout=0):
                entries = sorted(self._entries(), key=lambda entry: entry.used)
                total = sum(entry.size for entry in entries)
                for entry in entries[:-1]:  # the newest stays, however large
                    if total <= self.max_bytes:
                        break
                    _remove(entry.path)
                    total -= entry.size
        except Timeout:
            pass

    def _entries(self) -> Iterator[_Entry]:
        for path in Path(self.folder).glob("*/*"):
            with suppress(OSError):  # another process removed it
                used = path.stat().st_mtime
                if _UNFINISHED.fullmatch(path.name):
                    if used < time.time() - _ABANDONED:
                        shutil.rmtree(path, ignore_errors=True)
                elif _ENTRY.fullmatch(path.name):
                    yield _Entry(path, _size(path), used)


_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
"""Errors that say that another process put the folder there meanwhile, even if a third removed it since."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: float


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _remove(path: Path) -> None:
    """Remove an entry. A folder is moved aside first: half of one must never be found under its name."""
    with suppress(OSError):
        if path.is_dir():
            aside = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
            os.replace(path, aside / "entry")
            shutil.rmtree(aside, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
