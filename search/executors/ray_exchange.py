"""Lets machines of a cluster without a shared folder use each other's cache entries: nothing is made twice.

An entry is found by its name, which is a hash of what it was made from. The machine that made it puts it into Ray's
object store; a registry knows where it is. Where all machines see the same folder, nothing of this is needed.
"""

from __future__ import annotations

import io
import logging
import tarfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import override

from objectives.cache import Cache

log = logging.getLogger(__name__)

MOST_BYTES = 512 << 20
"""The largest entry that travels."""


class Registry:
    """Knows the entries of all machines, by stage and name; it is an actor without a core of its own."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Any] = {}

    def offer(self, stage: str, key: str, entry: list[Any]) -> None:
        """Note an entry: a reference into the object store, in a list, so that Ray does not resolve it."""
        self._entries[stage, key] = entry[0]

    def find(self, stage: str, key: str) -> list[Any]:
        """Return the reference to an entry, in a list, which is empty where nobody offered it."""
        return [self._entries[stage, key]] if (stage, key) in self._entries else []


class ExchangedCache(Cache):
    """The cache of one machine, which asks the others for what it lacks."""

    _registry: Any = None

    @classmethod
    def of(cls, cache: Cache, registry: Any) -> ExchangedCache:
        """Return ``cache`` with the others behind it; ``registry``: the actor that knows them."""
        exchanged = cls(folder=cache.folder, max_bytes=cache.max_bytes)
        object.__setattr__(exchanged, "_registry", registry)
        return exchanged

    @override
    def get(self, stage: str, key: str) -> dict[str, Any] | None:
        found = super().get(stage, key)
        return super().get(stage, key) if found is None and self._fetched(stage, key) else found

    @override
    def put(self, stage: str, key: str, value: Mapping[str, Any]) -> None:
        super().put(stage, key, value)
        self._offer(stage, key)

    @override
    def folder_of(self, stage: str, key: str) -> Path | None:
        found = super().folder_of(stage, key)
        return super().folder_of(stage, key) if found is None and self._fetched(stage, key) else found

    @override
    def put_folder(self, stage: str, key: str, write: Callable[[Path], object]) -> None:
        super().put_folder(stage, key, write)
        self._offer(stage, key)

    def _offer(self, stage: str, key: str) -> None:
        import ray

        try:
            entry = packed(self._path(stage, key))
            if len(entry) > MOST_BYTES:
                log.warning(
                    "an entry of the cache with %d MB stays on its machine; others make it again", len(entry) >> 20
                )
                return
            ray.get(self._registry.offer.remote(stage, key, [ray.put(entry)]))
        except (OSError, ray.exceptions.RayError) as error:
            log.warning("an entry of the cache is not offered to other machines: %s", error)

    def _fetched(self, stage: str, key: str) -> bool:
        """Place another machine's entry into this cache, and return whether there was one."""
        import ray

        try:
            offered = ray.get(self._registry.find.remote(stage, key))
            if not offered:
                return False
            entry: bytes = ray.get(offered[0])
        except ray.exceptions.RayError:  # its machine left
            return False
        super().put_folder(stage, key, lambda part: unpack(entry, part))
        return True


def packed(path: Path) -> bytes:
    """Return a file or folder as an archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        writer.add(path, "entry")
    return archive.getvalue()


def unpack(archive: bytes, path: Path) -> None:
    """Write the file or folder of an archive at ``path``, whose name is ``entry``."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        reader.extractall(path.parent, filter="data")


def mark(cache: Cache) -> str:
    """Write a file into the cache's folder by which others see that it is the same, and return its name."""
    name = f".seen-{uuid.uuid4().hex}"
    with suppress(OSError):
        Path(cache.folder).mkdir(parents=True, exist_ok=True)
        (Path(cache.folder) / name).touch()
    return name


def unmark(cache: Cache, name: str) -> None:
    """Remove what :func:`mark` wrote."""
    with suppress(OSError):
        (Path(cache.folder) / name).unlink()


def is_shared(cache: Cache, name: str) -> bool:
    """Return whether this machine sees the folder in which the file ``name`` was written."""
    return (Path(cache.folder) / name).is_file()
