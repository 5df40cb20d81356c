"""The yaml files of ``conf/`` as objects, so that a contract suite covers whatever is there."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

CONF = Path(__file__).parents[2] / "conf"


def choices(group: str) -> list[str]:
    """Names of all yaml files of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def built(group: str, choice: str, **changes: object) -> Any:
    """What the yaml's ``_target_`` makes of its fields, some of them changed; what refers to other keys is left out."""
    fields = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
    own = {name: each for name, each in fields.items() if name != "defaults" and not str(each).startswith("${")}
    return _made({**own, **changes})


def _made(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    fields = {name: _made(value) for name, value in node.items()}
    return resolve_name(fields.pop("_target_"))(**fields) if "_target_" in fields else fields
