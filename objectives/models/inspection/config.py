"""``config.json`` as its model will read it: by common names, with the defaults of its class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.errors import ModelError, said
from objectives.models.inspection.library import ConfigClass, config_class


@dataclass(frozen=True)
class Config:
    """A ``config.json``. ``raw``: the file; ``kind``: the class that will read it, None where that is not known."""

    raw: Mapping[str, Any]
    model_type: str
    kind: ConfigClass | None

    def get(self, name: str) -> Any:
        """Return a field's value by its common name (``num_hidden_layers`` for GPT-2's ``n_layer``); else None."""
        names = [self.kind.aliases[name]] if self.kind and name in self.kind.aliases else []
        names.append(name)
        for each in names:
            if each in self.raw:
                return self.raw[each]
        return next((self.kind.fields[each] for each in names if self.kind and each in self.kind.fields), None)

    def number(self, name: str) -> int | None:
        """Return a positive whole number; None where the field is absent or anything else."""
        value = self.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def declares(self, name: str) -> bool:
        """Return whether the model reads a field of that name; of an unknown class, whether the file has it."""
        return name in self.raw if self.kind is None else self.kind.declares(name)

    @property
    def architectures(self) -> tuple[str, ...]:
        """Return the classes that the checkpoint was saved from."""
        listed = self.raw.get("architectures")
        return tuple(map(str, listed)) if isinstance(listed, list) else ()


def read_config(folder: Path) -> Config:
    """Return the config of a checkpoint. Raises ModelError for a file that is missing or no JSON object."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"model.path: {folder} has no config.json")
    raw = read_json(file)
    if not isinstance(raw, dict):
        raise ModelError(f"model.path: cannot load {folder}: config.json holds no mapping")
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelError(
            f"model.path: {folder}: config.json names no model_type; is it a checkpoint that transformers saved?"
        )
    return Config(raw, model_type, config_class(model_type))


COUNTS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
"""Fields that are positive whole numbers wherever they are."""


def refuse_numbers(folder: Path, config: Config) -> None:
    """Raise ModelError for a count that is no positive whole number, and for heads that KV heads do not divide."""
    for name in COUNTS:
        value = config.raw.get(name)
        if value is not None and not isinstance(value, list) and config.number(name) is None:  # some list them by block
            raise ModelError(f"model.path: {folder}: config.json has {name} {value!r}, a whole number above 0 expected")
    heads, groups = config.raw.get("num_attention_heads"), config.raw.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        raise ModelError(
            f"model.path: {folder}: config.json has {heads} num_attention_heads, which {groups} num_key_value_heads do "
            "not divide"
        )


def read_generation(folder: Path) -> None:
    """Raise ModelError where generation_config.json is there and is no JSON object."""
    file = folder / "generation_config.json"
    if file.is_file() and not isinstance(read_json(file), dict):
        raise ModelError(f"model.path: cannot load {folder}: {file.name} holds no mapping")


def read_json(file: Path) -> Any:
    """Read a file of the checkpoint. Raises ModelError where it is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model.path: cannot load {file.parent}: {file.name} is no JSON: {said(error)}") from error
