"""The cache of assets: a folder at its final path is complete, or it is not there.

An asset is built in a hidden sibling folder, listed in a manifest with the hash of every file, and renamed
into place, under a lock per asset. A killed build leaves only its hidden folder, and the next build of that
asset removes it: whoever holds the lock knows that no other build is alive.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from objectives.assets.asset import Asset, AssetError, Listed, Say

MANIFEST = "paretune-asset.json"


def cache_dir() -> Path:
    """Return ``$PARETUNE_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("PARETUNE_CACHE") or platformdirs.user_cache_dir("paretune")).absolute()


def folder(asset: Asset) -> Path:
    """Return the folder in which ``asset`` lies once it is ready."""
    return cache_dir() / f"{asset.name}-{asset.version}"


def is_ready(path: Path) -> bool:
    """Return whether all files of the manifest are there at their size; cheap, checked at every use."""
    files = _listed(path)
    return files is not None and all(_size(path / name) == entry["bytes"] for name, entry in files.items())


def is_intact(path: Path) -> bool:
    """Return whether, besides, every file has the hash of the manifest; reads all bytes, checked at every fetch."""
    files = _listed(path) if is_ready(path) else None
    return files is not None and all(_sha256(path / name) == entry["sha256"] for name, entry in files.items())


def place(asset: Asset, say: Say) -> Path:
    """Make ``asset`` ready unless it is, and return its folder."""
    final = folder(asset)
    if is_intact(final):
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _alone(asset, say):
            if not is_intact(final):
                _build(asset, final, say)
    except OSError as error:
        raise AssetError(f"cannot build {asset.name} in {final.parent}: {error}") from error
    return final


def _build(asset: Asset, final: Path, say: Say) -> None:
    for leftover in final.parent.glob(f".{asset.name}.*.part"):
        shutil.rmtree(leftover, ignore_errors=True)  # the pip of a killed build may still write there
    scratch = Path(tempfile.mkdtemp(prefix=f".{asset.name}.", suffix=".part", dir=final.parent))
    try:
        into = scratch / "asset"
        into.mkdir()
        asset.build(into, say)
        _share(into)
        _write_manifest(asset, into)
        if final.exists():  # damaged: move it aside, a rename cannot replace a full folder
            say(f"replacing the damaged {final}")
            os.replace(final, scratch / "damaged")
        os.replace(into, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _share(into: Path) -> None:
    """Give the files the folder's permissions: safetensors writes for the owner only, caches are shared.

    What links lead to is not ours; what may be run, may still be run.
    """
    mode = into.stat().st_mode & 0o666
    for path in into.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode | path.stat().st_mode & 0o111)


@contextmanager
def _alone(asset: Asset, say: Say) -> Iterator[None]:
    lock = FileLock(cache_dir() / f".{asset.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is building {asset.name}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_manifest(asset: Asset, into: Path) -> None:
    patterns = asset.listed if isinstance(asset, Listed) else ("**/*",)
    files = {
        path.relative_to(into).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(path for pattern in patterns for path in into.glob(pattern))
        if path.is_file()
    }
    content = {"name": asset.name, "version": asset.version, "files": files}
    (into / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _listed(path: Path) -> dict[str, dict[str, object]] | None:
    try:
        files: dict[str, dict[str, object]] = json.loads((path / MANIFEST).read_bytes())["files"]
    except (OSError, ValueError, KeyError):
        return None
    return files


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
