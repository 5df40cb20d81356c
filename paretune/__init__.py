"""Runs studies from Python: ``paretune.search(model, data=..., floor=0.99)`` returns one (docs/python.md).

The names here are loaded when they are first used, so that ``import paretune`` takes milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from objectives import load
    from objectives.errors import ObjectiveError
    from paretune.searching import open as open
    from paretune.searching import search
    from paretune.study import Study
    from search.errors import (
        BaselineFailed,
        ConfigError,
        Interrupted,
        NothingFeasible,
        ParetuneError,
        StudyConflict,
    )

    __version__: str

__all__ = [
    "BaselineFailed",
    "ConfigError",
    "Interrupted",
    "NothingFeasible",
    "ObjectiveError",
    "ParetuneError",
    "Study",
    "StudyConflict",
    "load",
    "search",
]

_PLACES = {
    "search": "paretune.searching",
    "open": "paretune.searching",
    "Study": "paretune.study",
    "load": "objectives",
    "ObjectiveError": "objectives.errors",
}
"""The modules of the names that do not come from ``search.errors``."""


def __getattr__(name: str) -> Any:
    """Load what this package is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("paretune")
    if name != "open" and name not in __all__:
        raise AttributeError(f"module 'paretune' has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "search.errors")), name)


def __dir__() -> list[str]:
    """List these names beside those that are loaded."""
    return sorted({*globals(), *__all__, "open", "__version__"})
