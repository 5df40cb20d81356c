"""Says what makes two studies the same one: a part of their configuration, spelled as the first version would have.

A study keeps its name, and goes on, under later versions. So targets that moved count under their first path, a setting
that came later counts only where it is not at its default, and one that is gone counts with the value that it had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from search.errors import ConfigError
from search.space.instantiate import first_spelled
from search.space.space import CHOSEN, PARTS

DEFINITION = (
    "model", "task", "accuracy_floor", "limits", *PARTS, "runtimes", "space", "objectives", "timing", "device"
)  # fmt: skip
"""The keys that make two studies the same study."""

_NAMED = (*DEFINITION, "sampler", "seed")
"""The keys behind the hash in a default study name: a sweep over samplers or seeds makes several studies."""

_KEY_VALUES = {"_target_": "objectives.protocols.key_values.KeyValueBits", "bits": 16}

DEFAULTS: Mapping[str, Any] = {
    "runtime": {"_target_": "objectives.runtime.torch.Torch"},
    "runtimes": {},
    "kv": _KEY_VALUES,
    "limits": None,
}
"""Parts of studies that were stored before there were such parts."""

_LATER: Mapping[str, Mapping[str, Any]] = {
    "": {"kv": _KEY_VALUES, "limits": None},
    "objectives.quantization.gptq.Gptq": {"descent": 0},
    "objectives.pruning.structured.Structured": {"layout": "free"},
    "objectives.runtime.torch.Torch": {"prefill_copy": False},
    "objectives.runtime.vllm.Vllm": {"w4a8": True},
}
"""Parts and settings that came after studies had been named, by the class that has them, with their defaults."""

_GONE: Mapping[str, Mapping[str, Any]] = {"objectives.runtime.llama_cpp.LlamaCpp": {"cache_bits": 16}}
"""Settings that studies were named with and that are no more, by class, with the only value that still says nothing."""

_INSTEAD = {"cache_bits": "kv.bits"}
"""The settings that took the place of those that are gone."""


def defining(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a configuration that define the study, with only those runtimes that the space can select."""
    tree = resolved["space"].get(CHOSEN)
    names = (tree.get("name") or ()) if isinstance(tree, Mapping) else ()
    runtimes = {name: resolved["runtimes"].get(name) for name in names}
    spelled = _as_at_first(first_spelled({**resolved, "runtimes": runtimes, "limits": resolved.get("limits") or None}))
    return {key: spelled[key] for key in _NAMED if key in spelled}


def definition_of(resolved: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the definition of the study; ``device``: the name of the device that was found."""
    found = {key: part for key, part in defining(resolved).items() if key in DEFINITION}
    return {**found, "device": {"name": device, **found["device"]}}


def hash_of(resolved: Mapping[str, Any]) -> str:
    """Return the hash that stands in the study's default name."""
    return hashlib.sha256(json.dumps(defining(resolved), sort_keys=True).encode()).hexdigest()[:8]


def without_gone(value: Any, key: str = "") -> Any:
    """Leave out of a stored or written configuration the settings that are gone.

    Raises ConfigError for one that says something, with the setting that took its place. ``key``: its dotted path.
    """
    if isinstance(value, list):
        return [without_gone(item, f"{key}[{place}]") for place, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    gone = _GONE.get(str(value.get("_target_")), {})
    for name in gone.keys() & value.keys():
        if value[name] != gone[name]:
            told = f"{key}.{name}: is a part of the candidate now, for all runtimes that have it"
            raise ConfigError(f"{told}; write {_INSTEAD[name]}={value[name]} instead")
    below = f"{key}." if key else ""
    return {name: without_gone(item, f"{below}{name}") for name, item in value.items() if name not in gone}


def _as_at_first(value: Any) -> Any:
    """Return a configuration without what came later and has its default, and with what is gone."""
    if isinstance(value, Mapping):
        target = str(value.get("_target_", ""))
        later, gone = _LATER.get(target, {}), _GONE.get(target, {})
        kept = {name: item for name, item in value.items() if name not in later or later[name] != item}
        return {**gone, **{name: _as_at_first(item) for name, item in kept.items()}}
    return [_as_at_first(item) for item in value] if isinstance(value, list) else value
