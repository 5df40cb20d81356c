"""Chooses the runtime of the baseline: torch, or where a server is loaded, one that serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from objectives.protocols.candidate import Runtime
from objectives.protocols.running import Workload
from objectives.protocols.serving import Hosting, Loading

REFERENCE = "torch"
"""The runtime of the baseline of every workload that torch can run."""


def reference_of(workload: Workload, names: Sequence[str], made: Callable[[str], Runtime]) -> str:
    """Return the name of the baseline's runtime; ``names``: those that may be chosen, the likeliest first.

    ``made`` builds a runtime by its name. Where none of them serves, torch is named, and refused with its reason.
    """
    if not isinstance(workload, Loading):
        return REFERENCE
    return next((name for name in names if unserved(made(name)) is None), REFERENCE)


def unserved(runtime: Runtime) -> str | None:
    """Return why ``runtime`` cannot serve; None where it can."""
    return runtime.unserved() if isinstance(runtime, Hosting) else "has no server"
