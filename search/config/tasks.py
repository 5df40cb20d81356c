"""Several tasks and their floors, from the form in which they are written to the one in which a study keeps them.

``tasks: {boolq: ..., summary: ...}`` becomes the one task :class:`objectives.tasks.several.Several`, and
``accuracy_floor: {boolq: 0.99}`` the floor of a task of that name. A study of one task is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from search.config.overrides import parsed, quoted
from search.errors import ConfigError
from search.front.accuracy_floor import AccuracyFloor
from search.space.instantiate import build, nearest

SEVERAL = "objectives.tasks.several.Several"
WEIGHTS = "weights"
_IN_YAML = ("_target_", "epsilon", "relative", "error")
"""The settings that every yaml in ``conf/accuracy_floor`` has."""


def with_tasks(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``resolved`` with its ``tasks``, if it has any, as its task, and with their floors. Raises ConfigError."""
    rest = {key: value for key, value in resolved.items() if key != "tasks"}
    tasks = resolved.get("tasks") or {}
    if not isinstance(tasks, Mapping):
        raise ConfigError(f"tasks: expected names with a task each, as 'tasks=[boolq,piqa]'; got {tasks!r}")
    if tasks:
        weights = tasks.get(WEIGHTS) or {}
        named = {name: node for name, node in tasks.items() if name != WEIGHTS}
        wrong = next((name for name, node in named.items() if not _is_task(node)), None)
        if wrong is not None:
            raise ConfigError(f"tasks.{wrong}: required, one of the choices in conf/task/; got {named[wrong]!r}")
        if len(named) < 2:
            raise ConfigError(f"tasks: at least two are needed, got {', '.join(named)}; a single one is task=<choice>")
        rest["task"] = {"_target_": SEVERAL, "tasks": named, "weights": weights}
    task, floor = rest.get("task"), rest.get("accuracy_floor")
    if isinstance(task, Mapping) and task.get("_target_") == SEVERAL and isinstance(floor, Mapping):
        rest["accuracy_floor"] = _with_floors(floor)
    return rest


def _is_task(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _with_floors(floor: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``floor`` with the floors of single tasks below ``tasks``: every key that is no setting is a task's."""
    settings = {"_target_", *AccuracyFloor.__dataclass_fields__}
    rest = {key: value for key, value in floor.items() if key in settings}
    given = {**(floor.get("tasks") or {}), **{name: value for name, value in floor.items() if name not in settings}}
    return {**rest, "tasks": given} if given else rest


def build_task(node: Mapping[str, Any], allowed: Sequence[str]) -> Any:
    """Build the task; messages about several name their settings as the user writes them, below ``tasks``."""
    if node.get("_target_") != SEVERAL or not isinstance(node.get("tasks"), Mapping):
        return build(node, "task", allowed)
    tasks = {name: build(each, f"tasks.{name}", allowed) for name, each in node["tasks"].items()}
    return build({**node, "tasks": tasks}, "tasks", allowed)


def require_floors(floor: AccuracyFloor, names: Sequence[str]) -> None:
    """Raise ConfigError for the floor of a task that is not there; ``names``: of several tasks, empty for one."""
    unknown = next((name for name in floor.tasks if name not in names), None)
    if unknown is not None:
        meant = nearest(unknown, [*names, *AccuracyFloor.__dataclass_fields__])
        raise ConfigError(
            f"accuracy_floor.{unknown}: no task of that name{meant}; tasks: {', '.join(names) or 'one, without a name'}"
        )
    if floor.mean is not None and not names:
        raise ConfigError("accuracy_floor.mean: is that of several tasks, as 'tasks=[boolq,piqa]'; there is one")


def spread(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with ``tasks=[boolq,piqa]`` written as Hydra composes it. Raises ConfigError.

    Hydra takes a choice of the group ``task`` for every place that is named. New keys below ``tasks``,
    ``limits`` and ``accuracy_floor`` are added without a ``+``.
    """
    found = [(word, None if word.startswith("-") else parsed(word)) for word in words]
    listed = [override for _, override in found if override is not None and _names_tasks(override)]
    if listed:
        alone = next((word for word, override in found if override is not None and _is_of_one_task(override)), None)
        if alone is not None:
            raise ConfigError(f"task: not together with tasks; {alone!r} is written tasks.<name>.<setting>=...")
    return [each for word, override in found for each in _spread(word, override)]


def _names_tasks(override: Override) -> bool:
    value = override.value()
    return override.key_or_group == "tasks" and not override.is_sweep_override() and isinstance(value, list | dict)


def _is_of_one_task(override: Override) -> bool:
    key = override.key_or_group
    return (key == "task" and override.package is None) or key.startswith("task.")


def _spread(word: str, override: Override | None) -> list[str]:
    if override is None or override.is_sweep_override():
        return [word]
    key, value = override.key_or_group, override.value()
    if _names_tasks(override) and isinstance(value, list | dict):
        named = value if isinstance(value, dict) else {str(each): each for each in value}
        twice = next((each for each in value if list(value).count(each) > 1), None)
        if twice is not None:
            raise ConfigError(f"tasks: {twice} is there twice; 'tasks={{one: {twice}, other: {twice}}}' names them")
        return [f"+task@tasks.{name}={choice}" for name, choice in named.items()]
    if key == "accuracy_floor" and isinstance(value, dict):
        return [f"++accuracy_floor.{name}={_text(each)}" for name, each in value.items()]
    is_new = key.startswith((f"tasks.{WEIGHTS}", "limits.")) or (
        key.startswith("accuracy_floor.") and key.partition(".")[2] not in _IN_YAML
    )
    return [f"++{word}"] if is_new and not word.startswith(("+", "~")) else [word]


def _text(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
