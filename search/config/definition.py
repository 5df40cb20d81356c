"""Says what makes two studies the same study, and names one that is given no name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from search.config.scalars import Scalars
from search.space.instantiate import first_spelled
from search.space.space import CHOSEN, PARTS

DEFINITION = ("model", "task", "accuracy_floor", *PARTS, "runtimes", "space", "objectives", "timing", "device")
"""The keys that make two studies the same study."""

LIMITS = "limits"
"""A further one, where any metric is limited: studies without limits have the names and definitions that they had."""

_NAMED = (*DEFINITION, "sampler", "seed")
"""The keys behind the hash in a default study name: a sweep over samplers or seeds makes several studies."""


def study_name(scalars: Scalars, resolved: Mapping[str, Any], swept: str) -> str:
    """Return the name that was given, or one with a hash of the definition; ``swept``: a job of a multirun."""
    if scalars.study_name:
        return f"{scalars.study_name}-{swept}" if swept else scalars.study_name
    found = defining(resolved)
    names = (*_NAMED, *((LIMITS,) if found.get(LIMITS) else ()))
    named = json.dumps({key: found[key] for key in names}, sort_keys=True)
    return f"{scalars.project}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"


def defining(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration, with only those runtimes that the space can select."""
    tree = resolved["space"].get(CHOSEN)
    names = (tree.get("name") or ()) if isinstance(tree, Mapping) else ()
    runtimes = {name: resolved["runtimes"].get(name) for name in names}
    return dict(first_spelled({**resolved, "runtimes": runtimes}))
