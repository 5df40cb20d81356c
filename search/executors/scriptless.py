"""Spawns processes that do not run the user's script again.

multiprocessing lets a spawned process import the main module of its parent, so that objects defined there can be
unpickled. A script that calls ``paretune.search`` without ``if __name__ == "__main__":`` would begin its study again
in there. Nothing that a study sends to its worker is defined in a main module, so the worker is told of none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Any

from typing_extensions import override

_hiding = Lock()


class _Process(SpawnProcess):
    """A spawned process without a main module."""

    @staticmethod
    @override
    def _Popen(process_obj: BaseProcess) -> Any:
        with _main_hidden():
            return SpawnProcess._Popen(process_obj)


class ScriptlessContext(SpawnContext):
    """The context of multiprocessing whose processes import no main module."""

    Process = _Process


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep from multiprocessing, for the milliseconds of a start, where the main module came from."""
    main = sys.modules["__main__"]
    with _hiding:
        kept: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
        vars(main).update(dict.fromkeys(kept))
        try:
            yield
        finally:
            vars(main).update(kept)
