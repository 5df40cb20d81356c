"""Builds objects from yaml nodes; no other place obeys ``_target_``, nor imports a function that a setting names.

A target must lie below a package of ours or ``optuna.samplers`` (Hydra's own instantiate would run anything that
can be imported), or in a module that the user admits, which is also looked for in the working folder. A setting whose
declared type is a function takes ``module:function``. An error is one line: the key, what is allowed there, and what
came.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from typing_extensions import get_protocol_members, is_protocol

from objectives.errors import described
from objectives.protocols.moved import MODULES
from objectives.settings import class_path, functions_of, settings_of
from objectives.tasks.answers import in_a_line
from search.errors import ConfigError, ParetuneError
from search.space.accepted import Steps, accepted, steps_of, value_at, written

ALLOWED = ("objectives.", "search.", "optuna.samplers.")

FUNCTIONS = frozenset({"objectives.devices.detect.detect_device"})
"""Our functions that a yaml names."""

SHOWN = 200
"""Characters of a wrong value that a message shows."""

_BEFORE = {now: before for before, now in MODULES.items()}
"""Modules that moved, by their new path; a study keeps the name that the old one gave it."""


def build(node: Any, key: str, allowed: Sequence[str] = ALLOWED) -> Any:
    """Build ``node``, children first. ``key``: its dotted path in the config, for messages."""
    if isinstance(node, Mapping):
        built = {name: build(child, f"{key}.{name}", allowed) for name, child in node.items()}
        return _construct(built, key, allowed) if "_target_" in built else built
    if isinstance(node, list):
        return [build(child, f"{key}[{index}]", allowed) for index, child in enumerate(node)]
    return node


def target_of(node: Mapping[str, Any], key: str, allowed: Sequence[str] = ALLOWED) -> Any:
    """Return the class or function that a node names. Raises ConfigError where it is not allowed or not there."""
    target = node.get("_target_")
    if not isinstance(target, str) or not target.startswith(tuple(allowed)):
        raise ConfigError(
            f"{key}._target_: must start with one of {', '.join(allowed)}; got {target!r} "
            "(allow_targets=[your_module.] admits your own)"
        )
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(_module(module_name), name)
    except (Exception, SystemExit) as error:  # a module of a user's may raise anything
        raise ConfigError(f"{key}._target_: {target} cannot be imported: {_why(error)}") from error
    if not callable(found):
        raise ConfigError(f"{key}._target_: {target} is no class, but {type(found).__name__} {found!r}")
    if target.startswith(ALLOWED) and not _is_of_settings(found) and target not in FUNCTIONS:
        raise ConfigError(f"{key}._target_: {target} is no class of settings, and is not called from a yaml")
    return found


def _is_of_settings(found: Any) -> bool:
    """Return whether ``found`` is a dataclass, whose construction checks and does nothing else, or part of a sampler.

    Any other class or function of ours may read, write or run what its arguments say.
    """
    if not inspect.isclass(found):
        return False
    return is_dataclass(found) or any(base.__module__.startswith("optuna.samplers.") for base in found.__mro__)


def function_of(named: str, key: str, allowed: Sequence[str] = ALLOWED) -> Callable[..., Any]:
    """Return the function that ``named`` (``module:function``) names.

    Raises ConfigError where its module is not allowed or raises, and where it has no such function.
    """
    module_name, _, name = named.partition(":")
    if not (module_name and name):
        raise ConfigError(f"{key}: expected module:function, such as my_module:score, got {named!r}")
    if not f"{module_name}.".startswith(tuple(each for each in allowed if each not in ("search.", "optuna.samplers."))):
        raise ConfigError(f"{key}: {named} is run only where its module is admitted: allow_targets=[{module_name}]")
    try:
        module = _module(module_name)
    except (Exception, SystemExit) as error:  # a module of a user's may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            raise ConfigError(f"{key}: no module {module_name} in the working folder or on PYTHONPATH") from error
        why = described(error) if isinstance(error, SyntaxError) else in_a_line(error)
        raise ConfigError(f"{key}: {module_name} cannot be imported: {why}") from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        what = "no function" if found is None else f"no function, but {type(found).__name__}"
        raise ConfigError(f"{key}: {module_name} has {what} {name}{nearest(name, functions)}")
    function: Callable[..., Any] = found
    return function


def _module(name: str) -> ModuleType:
    """Import a module; one that is not ours may also lie in the working folder, which stands last on the path."""
    here = os.getcwd()
    if not f"{name}.".startswith(ALLOWED) and not {here, ""} & {*sys.path}:
        sys.path.append(here)
    return importlib.import_module(name)


def first_spelled(value: Any) -> Any:
    """Return a configuration whose targets are spelled as they were first, so that a study keeps its name."""
    if isinstance(value, Mapping):
        return {
            name: _first_target(item) if name == "_target_" and isinstance(item, str) else first_spelled(item)
            for name, item in value.items()
        }
    return [first_spelled(item) for item in value] if isinstance(value, list) else value


def _first_target(target: str) -> str:
    module, _, name = target.rpartition(".")
    return f"{_BEFORE.get(module, module)}.{name}"


def _construct(node: dict[str, Any], key: str, allowed: Sequence[str]) -> Any:
    target = target_of(node, key, allowed)
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    _require_known(target, arguments, key)
    for name in functions_of(target) & arguments.keys():
        if isinstance(arguments[name], str):
            arguments[name] = function_of(arguments[name], f"{key}.{name}", allowed)
    try:
        return target(**arguments)
    except ValidationError as error:
        raise ConfigError(explain(error, target, key, arguments)) from error
    except ParetuneError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error
    except Exception as error:  # a user's own
        raise ConfigError(f"{key}: {class_path(target)}: {described(error)}") from error


def _require_known(target: Any, arguments: Mapping[str, Any], key: str) -> None:
    """Raise ConfigError for a key that ``target`` does not take, and for a missing key that it needs.

    The check is ours because many classes ignore unknown keys, pydantic's by default. A target that takes any key
    passes.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # written in C
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    named = settings_of(target)
    for name in arguments:
        if name not in named:
            known = f"known: {', '.join(named)}" if named else f"{target.__qualname__} has no settings"
            raise ConfigError(f"{key}.{name}: unknown key{nearest(name, list(named))}; {known}")
    for name, each in named.items():
        if each.default is each.empty and name not in arguments and not _is_checked(target):
            raise ConfigError(f"{key}.{name}: required, got nothing")


def _is_checked(target: Any) -> bool:
    """Return whether pydantic checks the arguments; then its message says what a missing key should be."""
    return hasattr(target, "__pydantic_validator__")


def _why(error: BaseException) -> str:
    """Return why an import failed; the class of an ImportError or AttributeError is left out."""
    text = described(error)
    return text.partition(": ")[2] if isinstance(error, (ImportError, AttributeError)) else text


def explain(error: ValidationError, target: Any, key: str, arguments: Mapping[str, Any]) -> str:
    """Return one line about the first setting that is wrong; ``arguments``: all that came.

    Of a union, whose members all refuse, the member that goes deepest into the value tells where it is wrong.
    """
    errors = error.errors()
    same = (each for each in errors if each["loc"][:1] == errors[0]["loc"][:1])
    first = max(same, key=lambda each: len(steps_of(each["loc"], arguments)))
    steps = steps_of(first["loc"], arguments)
    where, value = written(steps, key), value_at(steps, arguments)
    if first["type"] == "unexpected_keyword_argument":
        fields = list(inspect.signature(target).parameters)
        return f"{where}: unknown key{nearest(str(steps[-1]), fields)}; known: {', '.join(fields)}"
    if first["loc"] and not steps:
        name = str(first["loc"][0])
        return f"{written((name,), key)}: required, {accepted(target, (name,))}, got nothing"
    if first["type"] == "is_instance_of":
        return f"{where}: {_no_instance(value, first['ctx']['class'], target)}"
    if first["type"] in {"value_error", "assertion_error"}:
        given = f", got {_shown(value)}" if steps else ""  # what is wrong with several says so itself
        return f"{where}: {first['ctx']['error']}{given}"
    way_out = _quoted(steps, key, arguments) if first["type"] == "string_type" and isinstance(value, bool) else ""
    expected = accepted(target, steps) or first["msg"].removeprefix("Input should be ")
    return f"{where}: expected {expected}, got {_shown(value)}{way_out}"


def _shown(value: Any) -> str:
    """Return what came, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _quoted(steps: Steps, key: str, arguments: Mapping[str, Any]) -> str:
    """Return how the truth values of a setting are written where texts are expected."""
    return f"; in quotes it is a text: '{written(steps[:1], key)}={_in_quotes(arguments[str(steps[0])])}'"


def _in_quotes(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_in_quotes, value))}]"
    return f'"{str(value).lower()}"' if isinstance(value, bool) else str(value)


def _no_instance(given: Any, wanted: str, target: Any) -> str:
    """Return ``mine.Lines is no Corpus: it has no documents (objectives/protocols/corpus.py)``, or a shorter text."""
    kind = getattr(inspect.getmodule(target), wanted, None)
    came = class_path(type(given)).removeprefix("builtins.")
    if not isinstance(kind, type) or not is_protocol(kind):
        return f"expected a {wanted}, got {came}"
    lacks = [f"no {name}" for name in sorted(get_protocol_members(kind)) if not hasattr(given, name)]
    file = kind.__module__.replace(".", "/") + ".py"
    return f"{came} is no {wanted}: it has {', '.join(lacks)} ({file}); name a class by _target_"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return `` (did you mean X?)`` where ``known`` holds a similar name, else an empty text."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]}?)" if match else ""
