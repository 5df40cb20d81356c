"""Reads what the installed transformers knows of a model type from its source, without importing it or torch.

transformers keeps its tables of architectures as literals and its configs as classes whose fields have literal
defaults. Both are read as syntax, which takes milliseconds; importing the library would take seconds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TABLES = ("auto_mappings.py", "modeling_auto.py", "configuration_auto.py")


@dataclass(frozen=True)
class ConfigClass:
    """The config of one model type: its ``fields`` with their defaults, and ``aliases`` by their common name."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def declares(self, name: str) -> bool:
        """Return whether the model reads a field of that name."""
        return name in self.fields or name in self.aliases


def installed() -> str:
    """Return the version of transformers."""
    return version("transformers")


@cache
def table(name: str) -> Mapping[str, Any]:
    """Return one of the auto classes' tables, by model type; empty where this version has none of that name."""
    found = re.search(rf"^{name} = OrderedDict\(\n(.*?)^\)$", _tables(), re.MULTILINE | re.DOTALL)
    try:
        return dict(ast.literal_eval(found[1].strip())) if found else {}
    except (ValueError, SyntaxError):
        return {}


@cache
def model_types() -> Mapping[str, str]:
    """Return the config class of every model type that transformers knows, second names included."""
    further = re.search(r"OrderedDict\(\*\*(\{[^}]*\}), \*\*CONFIG_MAPPING_NAMES\)", _tables())
    return {**table("CONFIG_MAPPING_NAMES"), **(ast.literal_eval(further[1]) if further else {})}


def builds(model_type: str, kind: str) -> bool:
    """Return whether transformers has a class of that ``kind``, such as ``CAUSAL_LM`` or ``MASKED_LM``."""
    return model_type in table(f"MODEL_FOR_{kind}_MAPPING_NAMES")


@cache
def config_class(model_type: str) -> ConfigClass | None:
    """Return the config of a model type; None where its source cannot be read."""
    wanted = model_types().get(model_type)
    for file in sorted(_folder(model_type).glob("configuration_*.py")) if wanted else ():
        classes = {
            node.name: node
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef)
        }
        if wanted in classes:
            return _described(str(wanted), classes)
    return None


@cache
def modelling(model_type: str) -> str:
    """Return the source of a model type's modules; empty where it cannot be read."""
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(_folder(model_type).glob("modeling_*.py")))


def _described(name: str, classes: Mapping[str, ast.ClassDef]) -> ConfigClass:
    """Return the fields and aliases of a class, with those that it inherits from others of its file."""
    fields: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for base in classes[name].bases:
        if isinstance(base, ast.Name) and base.id in classes:
            inherited = _described(base.id, classes)
            fields |= inherited.fields
            aliases |= inherited.aliases
    for node in classes[name].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields[node.target.id] = _literal(node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _literal(node.value)
            if node.targets[0].id == "attribute_map" and isinstance(value, dict):
                aliases |= value
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":  # configs before dataclasses
            given = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            fields |= {each.arg: _literal(default) for each, default in zip(given, node.args.defaults)}
    return ConfigClass(fields, aliases)


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _folder(model_type: str) -> Path:
    name = table("SPECIAL_MODEL_TYPE_TO_MODULE_NAME").get(model_type, model_type.replace("-", "_"))
    folder, wanted = _models() / str(name), model_types().get(model_type)
    if wanted is None or any(folder.glob("configuration_*.py")):
        return folder
    first = next((known for known, kind in table("CONFIG_MAPPING_NAMES").items() if kind == wanted), model_type)
    return folder if first == model_type else _folder(first)


@cache
def _tables() -> str:
    files = [_models() / "auto" / name for name in _TABLES]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


@cache
def _models() -> Path:
    spec = find_spec("transformers")
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders or ()), "/nonexistent")) / "models"
