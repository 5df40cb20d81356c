"""Tells which packages a runtime is made of, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


@dataclass(frozen=True)
class Packages:
    """The packages of a runtime.

    ``run``, ``make``: modules that running and converting need; their distributions are named alike but for
    underscores. ``extra``: the extra of paretune that installs them all.
    """

    extra: str
    run: tuple[str, ...]
    make: tuple[str, ...] = ()

    def missing(self, running: bool = False) -> str | None:
        """Return what to install, in a line; None where nothing is missing. ``running``: only what running asks for."""
        wanted = self.run if running else (*self.run, *self.make)
        gone = [name for name in wanted if not _is_there(name)]
        if not gone:
            return None
        if running:
            return f"runtime={self.extra} needs {_listed(gone)}: pip install {' '.join(map(_distribution, gone))}"
        return f"runtime={self.extra} needs {_listed(gone)}: pip install 'paretune[{self.extra}]'"

    def versions(self) -> dict[str, str]:
        """Return the versions of the distributions that are installed."""
        installed = {}
        for name in map(_distribution, (*self.run, *self.make)):
            try:
                installed[name] = version(name)
            except PackageNotFoundError:
                continue
        return installed


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is being taken away
        return False


def _distribution(module: str) -> str:
    return module.replace("_", "-")


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names)
