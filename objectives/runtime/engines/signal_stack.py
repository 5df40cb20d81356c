"""The stack that a thread's signal handlers run on (sigaltstack) is the process's, not an engine's.

OpenVINO's CPU plugin gives the thread that loads it a stack of its own, of the least size, and unmaps it when it is
unloaded: the next signal that Python handles (Ctrl-C, SIGTERM) ends the process with a segmentation fault then.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """``stack_t`` of Linux's signal.h."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """That of this thread."""
    found = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Whatever is set meanwhile is set back."""
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
