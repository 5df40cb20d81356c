"""Reads what a container may use: the memory limits of this process's control group and of all above it.

Both versions of Linux's control groups are read. A container shows only its own part of the tree, as its root.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_LIMIT, _USED, _CACHE = 0, 1, 2
_NAMES = {
    "": ("memory.max", "memory.current", "memory.stat"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
}
"""Files of a group, by the name of the controller in version 1; in version 2 it has none."""


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yield the limits in bytes; nothing where there is none."""
    for files in _groups(root):
        limit = _number(files[_LIMIT])
        if limit is not None:
            yield limit


def memory_free(root: Path = Path("/")) -> Iterator[int]:
    """Yield the bytes that each limit leaves; cached files count as free, as they can be given back."""
    for files in _groups(root):
        limit, used = _number(files[_LIMIT]), _number(files[_USED])
        if limit is not None and used is not None:
            yield limit - used + _file_cache(files[_CACHE])


def _groups(root: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Yield the files of every group that limits this process: limit, use and statistics."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    tree = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers in _NAMES:
            path = PurePosixPath(group)
            for part in (path, *path.parents):
                folder = tree / controllers / part.relative_to("/")
                limit, used, stat = (folder / name for name in _NAMES[controllers])
                yield limit, used, stat


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max" means that there is no limit


def _file_cache(stat: Path) -> int:
    try:
        fields = dict(line.split()[:2] for line in stat.read_text(encoding="utf-8", errors="replace").splitlines())
    except (OSError, ValueError):
        return 0
    return sum(int(fields.get(name, 0)) for name in ("active_file", "inactive_file"))
