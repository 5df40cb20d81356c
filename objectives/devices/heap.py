"""Sets how glibc's malloc gives freed memory back, which decides whether runs pay for page faults.

By default the end of the heap goes back to the kernel whenever enough of it is free, and a block at whose size the
thresholds have not arrived yet is mapped and unmapped at every use. Which of it happens depends on what the process
allocated before: the same run took 20 % longer in two of three processes (docs/log.md). While models are timed, what
was freed is therefore kept; while the kernel's view of a peak is taken, everything is given back at once.
On systems without ``mallopt`` nothing is set.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BLOCK = 32 * 1024 * 1024
"""Larger blocks are always mapped: glibc's own limit."""
_NEVER = -1
_MAPPED_BLOCK = 64 * 1024


def keep_freed() -> None:
    """Keep freed blocks of up to 32 MiB with the process from now on."""
    _set(_KEPT_BLOCK, _NEVER)


@contextmanager
def give_back() -> Iterator[None]:
    """Make malloc map blocks of 64 KiB and more, and unmap them when freed; afterwards call :func:`keep_freed`."""
    _set(_MAPPED_BLOCK, 0)
    try:
        yield
    finally:
        keep_freed()


def one_arena() -> None:
    """Let new threads share one heap from now on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give back what is free now."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(mapped_from: int, trimmed_from: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, mapped_from)
        mallopt(_M_TRIM_THRESHOLD, trimmed_from)
