"""Says what makes two studies the same one: a part of their configuration, spelled as the first version would have.

A study keeps its name, and goes on, under later versions. So targets that moved count under their first path, a setting
that came later counts only where it is not at its default, and one that is gone counts with the value that it had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from search.space.instantiate import first_spelled
from search.space.space import CHOSEN, PARTS

DEFINITION = ("model", "task", "accuracy_floor", *PARTS, "runtimes", "space", "objectives", "timing", "device")
"""The keys that make two studies the same study."""

_NAMED = (*DEFINITION, "sampler", "seed")
"""The keys behind the hash in a default study name: a sweep over samplers or seeds makes several studies."""

DEFAULTS: Mapping[str, Any] = {"runtime": {"_target_": "objectives.runtime.torch.Torch"}, "runtimes": {}}
"""Parts of studies that were stored before there were such parts."""

_LATER: Mapping[str, Mapping[str, Any]] = {"objectives.pruning.structured.Structured": {"layout": "free"}}
"""Settings that came after studies had been named, by the class that has them, with their defaults."""


def defining(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a configuration that define the study, with only those runtimes that the space can select."""
    tree = resolved["space"].get(CHOSEN)
    names = (tree.get("name") or ()) if isinstance(tree, Mapping) else ()
    runtimes = {name: resolved["runtimes"].get(name) for name in names}
    spelled = _as_at_first(first_spelled({**resolved, "runtimes": runtimes}))
    return {key: spelled[key] for key in _NAMED}


def definition_of(resolved: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the definition of the study; ``device``: the name of the device that was found."""
    found = {key: part for key, part in defining(resolved).items() if key in DEFINITION}
    return {**found, "device": {"name": device, **found["device"]}}


def hash_of(resolved: Mapping[str, Any]) -> str:
    """Return the hash that stands in the study's default name."""
    return hashlib.sha256(json.dumps(defining(resolved), sort_keys=True).encode()).hexdigest()[:8]


def _as_at_first(value: Any) -> Any:
    """Return a configuration without the settings of :data:`_LATER` that have their defaults."""
    if isinstance(value, Mapping):
        later = _LATER.get(str(value.get("_target_")), {})
        return {name: _as_at_first(item) for name, item in value.items() if name not in later or later[name] != item}
    return [_as_at_first(item) for item in value] if isinstance(value, list) else value
