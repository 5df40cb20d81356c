"""Says in a line what Hydra or OmegaConf found wrong while a configuration was composed.

Hydra advises to append a key that it does not know, as ``+key=value``. That helps for a setting of a class which the
yaml does not write out, and for no other.
"""

from __future__ import annotations

from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from objectives.errors import said
from objectives.settings import settings_of
from search.errors import ConfigError
from search.space.instantiate import nearest, target_of


def gist(error: Exception) -> str:
    """Return the gist of a Hydra or OmegaConf message: its first lines say it, the rest repeats the stack.

    A choice and a key that are not there are named with the nearest that are.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        there = ", ".join(error.options)
        return f"{group}: no choice {choice!r}{nearest(choice, error.options)}; choices: {there}"
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and isinstance(cause.parent_node, DictConfig):
        return _unknown(str(cause.full_key), str(cause.key), cause.parent_node)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = [
        line
        for line in lines
        if not line.startswith(("full_key", "object_type", "reference_type", "Config search", "provider="))
    ]
    if cause is not None:
        shown.append(f"({said(cause)})")
    return " ".join(shown[:12])


def _unknown(path: str, name: str, parent: DictConfig) -> str:
    """Return what to write instead of the key ``name``, whose ``path`` is unknown to the node ``parent``."""
    written = [str(key) for key in parent if key not in ("_target_", "hydra")]
    further = [key for key in _of_class(parent, path) if key not in written]
    if name in further:
        return f"{path}: the yaml does not write this setting out; give it as +{path}=..."
    known = [*written, *further]
    if not known:
        group = path.rpartition(".")[0]
        return f"{path}: {group} has no settings as it is chosen; another choice of conf/{group}/ may: {group}=..."
    return f"{path}: unknown setting{nearest(name, known)}; known: {', '.join(sorted(known))}"


def _of_class(node: DictConfig, path: str) -> list[str]:
    """Return the settings that the class of a node takes; none where it names none of ours."""
    if "_target_" not in node:
        return []
    try:
        target = target_of({"_target_": node["_target_"]}, path)
    except ConfigError:
        return []
    return list(settings_of(target))
