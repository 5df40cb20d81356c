"""From a yaml node to an object: the only place where ``_target_`` is obeyed.

A target must lie below a package of ours or ``optuna.samplers`` (Hydra's own instantiate would run anything that
can be imported). What is wrong is said in one line: the key, what is allowed there, and what came.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from search.errors import ConfigError

ALLOWED = ("objectives.", "search.", "optuna.samplers.")


def build(node: Any, key: str, allowed: Sequence[str] = ALLOWED) -> Any:
    """Build ``node``, children first. ``key``: its dotted path in the config, for messages."""
    if isinstance(node, Mapping):
        built = {name: build(child, f"{key}.{name}", allowed) for name, child in node.items()}
        return _construct(built, key, allowed) if "_target_" in built else built
    if isinstance(node, list):
        return [build(child, f"{key}[{index}]", allowed) for index, child in enumerate(node)]
    return node


def target_of(node: Mapping[str, Any], key: str, allowed: Sequence[str] = ALLOWED) -> Any:
    """The class or function a node names; raises ConfigError when it is not allowed or not there."""
    target = node.get("_target_")
    if not isinstance(target, str) or not target.startswith(tuple(allowed)):
        raise ConfigError(
            f"{key}._target_: must start with one of {', '.join(allowed)}; got {target!r} "
            "(allow_targets=[your_module.] admits your own)"
        )
    module_name, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_: {target} cannot be imported: {error}") from error


def _construct(node: dict[str, Any], key: str, allowed: Sequence[str]) -> Any:
    target = target_of(node, key, allowed)
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    try:
        return target(**arguments)
    except ValidationError as error:
        raise ConfigError(explain(error, target, key)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error


def explain(error: ValidationError, target: Any, key: str) -> str:
    """One line for the first thing that is wrong."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    where = ".".join([part for part in (key, *map(str, first["loc"])) if part])
    fields = list(inspect.signature(target).parameters)
    if first["type"] == "unexpected_keyword_argument":
        return f"{where}: unknown key{nearest(name, fields)}; known: {', '.join(fields)}"
    if first["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return f"{where}: required, {_expected(target, name)}, got nothing"
    if first["type"] in {"value_error", "assertion_error"}:
        given = f", got {first['input']!r}" if first["loc"] else ""  # what is wrong with several says so itself
        return f"{where}: {first['ctx']['error']}{given}"
    return f"{where}: expected {_expected(target, name) or first['msg']}, got {first['input']!r}"


def nearest(name: str, known: Sequence[str]) -> str:
    """`` (did you mean X?)`` when something close exists."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


class _Schema(GenerateJsonSchema):
    """Leaves out what has no JSON form, such as a field that holds an object: pydantic's own message serves there."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


def _expected(target: Any, name: str) -> str:
    """What a field accepts, in words, from its JSON schema."""
    schema = TypeAdapter(target).json_schema(schema_generator=_Schema)
    field = schema.get("properties", {}).get(name, {})
    words = [_in_words(option) for option in field.get("anyOf", [field])]
    return " or ".join(word for word in words if word)


def _in_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kinds = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "a text"}
    kinds |= {"array": "a list", "object": "a mapping", "null": "null"}
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    if "pattern" in schema:
        longest = f" of at most {schema['maxLength']} characters" if "maxLength" in schema else ""
        return f"a text{longest} that matches {schema['pattern']}"
    if schema.get("type") == "array" and schema.get("minItems"):
        return f"a list of at least {schema['minItems']}"
    found = [f"{sign} {schema[limit]:g}" for limit, sign in limits.items() if limit in schema]
    return " ".join(part for part in (kinds.get(schema.get("type", ""), ""), " and ".join(found)) if part)
