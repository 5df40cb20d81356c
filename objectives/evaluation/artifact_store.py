"""Folders of files by content - converted graphs, engines - kept in the cache, and taken from it safely.

A cache drops the entries that were not used for longest, and files can be damaged. So a folder is checked against the
hashes that were written with it, and made again where they differ. Its user gets links of its own, which outlive the
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
    """The artifact folders of one process. ``cache``: where they are kept; with None nothing outlives the process."""

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache
        self._scratch: str | None = None

    def folder(self, kind: str, name: str | None, write: Write) -> Path:
        """Return a folder with what ``write`` makes.

        It comes from the cache under ``name`` where it is there and whole, and is made now where not. It is the
        caller's own, and may be added to. An exception of ``write`` is passed on.
        """
        folder = self._new(kind)
        if self._cache is None or name is None:
            write(folder)
            return folder
        if not self._taken(kind, name, folder):
            write(folder)
            self._keep(kind, name, folder)
        return folder

    @staticmethod
    def release_with(owner: object, folder: Path) -> None:
        """Remove ``folder`` as soon as ``owner`` is gone."""
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)

    def _new(self, kind: str) -> Path:
        """Make an empty folder beside the cache's entries, so that links can be made.

        A cache clears away the folders that a dead process left there.
        """
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

    def _taken(self, kind: str, name: str, folder: Path) -> bool:
        assert self._cache is not None
        entry = self._cache.folder_of(kind, name)
        if entry is None:
            return False
        try:
            _link(entry, folder)
            if hashes(folder) == json.loads((folder / HASHES).read_text(encoding="utf-8")):
                return True
        except (OSError, ValueError):  # it went meanwhile, or is torn
            pass
        log.warning("the cache's %s %s is damaged and will be made again", kind, name)
        self._cache.drop(kind, name)
        for file in folder.iterdir():
            file.unlink()
        return False

    def _keep(self, kind: str, name: str, folder: Path) -> None:
        assert self._cache is not None
        (folder / HASHES).write_text(json.dumps(hashes(folder)), encoding="utf-8")

        def fill(new: Path) -> None:
            new.mkdir()
            _link(folder, new)

        self._cache.put_folder(kind, name, fill)


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in ``folder`` by name, without the list of hashes itself."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != HASHES}


def _link(source: Path, target: Path) -> None:
    """Link the files of ``source`` into ``target``, or copy them where the file system has no links."""
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(file, target / file.name)
