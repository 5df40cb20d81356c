"""Says in words what a setting accepts, from the schema that pydantic has of its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from typing_extensions import override

Steps: TypeAlias = tuple[int | str, ...]
"""The way to a value among the arguments of a class: a setting's name, then places in lists and keys of mappings."""

_KINDS = {
    "integer": "an integer", "number": "a number", "boolean": "true or false", "string": "a text", "array": "a list",
    "object": "a mapping", "null": "null", "function": "a function (module:name)",
}  # fmt: skip
_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def steps_of(location: Sequence[int | str], arguments: Mapping[str, Any]) -> Steps:
    """Return the steps of an error's ``location``, in which pydantic names the members of a union too."""
    steps: list[int | str] = []
    value: Any = arguments
    for step in location:
        listed = isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value)
        if listed or (isinstance(value, Mapping) and step in value):
            steps.append(step)
            value = value[step]
    return tuple(steps)


def value_at(steps: Steps, arguments: Mapping[str, Any]) -> Any:
    """Return the value that ``steps`` lead to."""
    value: Any = arguments
    for step in steps:
        value = value[step]
    return value


def written(steps: Steps, key: str) -> str:
    """Return ``steps`` below ``key`` as messages write them: ``task.choices[0]``."""
    below = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f"{key}{below}".removeprefix(".")


def accepted(target: Any, steps: Steps) -> str:
    """Return in words what ``target`` accepts at ``steps``; an empty text where its schema does not say."""
    schema = TypeAdapter(target).json_schema(schema_generator=_Schema)
    definitions = schema.get("$defs", {})
    options = list(_members(schema, definitions))
    for step in steps:
        options = [inner for option in options for inner in _inside(option, step, definitions)]
    return " or ".join(dict.fromkeys(word for word in map(_in_words, options) if word))


class _Schema(GenerateJsonSchema):
    """Leaves out what has no JSON form, such as a field that holds an object; pydantic's own message is used there."""

    @override
    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}

    @override
    def callable_schema(self, schema: Any) -> JsonSchemaValue:
        return {"type": "function"}


def _inside(schema: Mapping[str, Any], step: int | str, definitions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas of what lies at ``step`` of a mapping or a list: one for each member of a union."""
    if isinstance(step, int):
        each = schema.get("prefixItems", [])
        found = each[step] if step < len(each) else schema.get("items")
    else:
        found = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    yield from _members(found, definitions)


def _members(schema: Any, definitions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not isinstance(schema, dict):  # true and false: anything, and nothing
        return
    if "$ref" in schema:
        yield from _members(definitions.get(schema["$ref"].rpartition("/")[2]), definitions)
    elif "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _members(each, definitions)
    else:
        yield schema


def _in_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "")
    if "pattern" in schema:
        longest = f" of at most {schema['maxLength']} characters" if "maxLength" in schema else ""
        return f"a text{longest} that matches {schema['pattern']}"
    if kind == "string" and schema.get("minLength"):
        return "a non-empty text"
    if kind == "array":
        return f"a list{_length(schema.get('minItems', 0), schema.get('maxItems'))}"
    bounds = [f"{sign} {schema[limit]:g}" for limit, sign in _LIMITS.items() if limit in schema]
    return " ".join(part for part in (_KINDS.get(kind, ""), " and ".join(bounds)) if part)


def _length(least: int, most: int | None) -> str:
    """Return how many items a list may have, after the words ``a list``."""
    if least == most:
        return f" of {least}"
    limits = [f"at least {least}"] * bool(least) + [f"at most {most}"] * (most is not None)
    return f" of {' and '.join(limits)}" if limits else ""
