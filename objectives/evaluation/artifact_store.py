"""Folders of files by content - converted graphs, engines - kept in the cache, and taken from it safely.

A cache lets go of what was not used for longest, and files can be damaged. So a folder is checked against the hashes
that were written with it, made again where they differ, and what uses it gets links of its own, which outlive the
entry.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from objectives.cache import UNFINISHED, Cache
from objectives.content_hash import sha256

log = logging.getLogger(__name__)

HASHES = ".sha256.json"

Write = Callable[[Path], None]


class ArtifactStore:
    """Of one process. ``cache``: None keeps nothing beyond it."""

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache
        self._scratch: str | None = None

    def folder(self, kind: str, name: str | None, write: Write) -> Path:
        """A folder with what ``write`` makes: from the cache under ``name`` where it is there and whole, else made now.

        It is the caller's own, and may be added to. What ``write`` raises is raised.
        """
        own = self._new(kind)
        if self._cache is None or name is None:
            write(own)
            return own
        if not self._taken(kind, name, own):
            write(own)
            self._keep(kind, name, own)
        return own

    @staticmethod
    def release_with(owner: object, folder: Path) -> None:
        """It goes with its ``owner``."""
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)

    def _new(self, kind: str) -> Path:
        """Beside the cache's entries, so that links can be made; a cache clears away what a dead process left there."""
        if self._scratch is None:
            place = None if self._cache is None else Path(self._cache.folder) / kind
            try:
                if place is not None:
                    place.mkdir(parents=True, exist_ok=True)
                self._scratch = mkdtemp(prefix=UNFINISHED, dir=place)
            except OSError:  # a cache that cannot be written to
                self._scratch = mkdtemp(prefix="paretune-")
            self.release_with(self, Path(self._scratch))
        os.utime(self._scratch)  # in use
        return Path(mkdtemp(dir=self._scratch))

    def _taken(self, kind: str, name: str, own: Path) -> bool:
        assert self._cache is not None
        there = self._cache.folder_of(kind, name)
        if there is None:
            return False
        try:
            _link(there, own)
            if hashes(own) == json.loads((own / HASHES).read_text(encoding="utf-8")):
                return True
        except (OSError, ValueError):  # it went meanwhile, or is torn
            pass
        log.warning("the cache's %s %s is damaged and will be made again", kind, name)
        self._cache.drop(kind, name)
        for file in own.iterdir():
            file.unlink()
        return False

    def _keep(self, kind: str, name: str, own: Path) -> None:
        assert self._cache is not None
        (own / HASHES).write_text(json.dumps(hashes(own)), encoding="utf-8")

        def fill(new: Path) -> None:
            new.mkdir()
            _link(own, new)

        self._cache.put_folder(kind, name, fill)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of all files but the list itself, by name."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != HASHES}


def _link(source: Path, target: Path) -> None:
    """The files of ``source`` in ``target``, without copying where the file system can."""
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(file, target / file.name)
