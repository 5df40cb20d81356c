"""Writes settings given in Python as the words of the command line, so that both go one way.

``timing={"precision": 0.02}`` is ``++timing.precision=0.02``; texts are quoted where Hydra would read them as anything
else, so that every text stays the text that it is, ``${`` and commas included.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from search.config.overrides import parsed, quoted
from search.errors import ConfigError

KIND = "kind"
"""The key of a mapping that chooses the yaml of a group: ``pruning={"kind": "depth"}`` is ``pruning=depth``."""

TASKS = "tasks"
"""The key of several tasks, which is one word: ``tasks={quiz:choice,news:text}``."""

FOREIGN = "__main__"
"""The module that no other process can import: a script or a notebook."""

_STEP = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", re.ASCII)
_BARE = re.compile(r"[\w./:@%-]+", re.ASCII)


def as_path(value: Any, key: str) -> str:
    """Return a path as a text. Raises ConfigError for what is no path."""
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(f"{key}: a path expected, got {type(value).__name__} {str(value)[:40]!r}")
    return os.fspath(value)


def words_of(settings: Mapping[str, Any], groups: Collection[str]) -> list[str]:
    """Return ``settings``, by key, as words of the command line; ``groups``: the keys that choose a yaml.

    Keys may be dotted paths here and below ``space``, whose keys mirror those of a candidate. Mappings are taken
    apart, but for those whose keys are no steps of a path (``{"latency.p95": 1.0}``). Raises ConfigError for a key or a
    value that no setting has.
    """
    words: list[str] = []
    for key, value in settings.items():
        if not _PATH.fullmatch(key):
            raise ConfigError(f"{key!r}: a key is a name or a dotted path, as timing.precision")
        if key in groups and isinstance(value, Mapping) and KIND in value:
            words.append(f"{key}={_text(value[KIND], key)}")
            value = {name: item for name, item in value.items() if name != KIND}
        if (key in groups and not isinstance(value, Mapping)) or key == TASKS:
            words.append(f"{key}={_text(value, key)}")
        else:
            words += [f"++{path}={_text(item, path)}" for path, item in flat(key, value)]
    return words


def flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted paths below ``key`` with their values."""
    step = _PATH if key.partition(".")[0] == "space" else _STEP
    if isinstance(value, Mapping) and all(isinstance(name, str) and step.fullmatch(name) for name in value):
        for name, item in value.items():
            yield from flat(f"{key}.{name}", item)
    else:
        yield key, value


def _text(value: Any, key: str) -> str:
    """Return ``value`` in Hydra's grammar. Raises ConfigError."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (str, os.PathLike)):
        return _quoted(os.fspath(value))
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_key(name, key)}:{_text(item, key)}' for name, item in value.items())}}}"
    if isinstance(value, (list, tuple, range)):
        return f"[{','.join(_text(item, key) for item in value)}]"
    if callable(value):
        return _quoted(_importable(value, key))
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        return _text(value.tolist(), key)
    raise ConfigError(
        f"{key}: a setting is a text, a number, true or false, None, a list, a mapping or a function, got "
        f"{type(value).__name__} {str(value)[:40]!r}"
    )


def _importable(function: Any, key: str) -> str:
    """Return ``module:name`` of a function that another process can import. Raises ConfigError for any other."""
    if not inspect.isfunction(function):
        raise ConfigError(f"{key}: a function expected, got {type(function).__name__}; write a function that calls it")
    if function.__module__ == FOREIGN or not function.__qualname__.isidentifier():
        raise ConfigError(
            f"{key}: {function.__qualname__} is defined in a script, a notebook or another function, where the worker "
            "process cannot import it; write it into a file, as metric.py, and give `from metric import ...`"
        )
    return f"{function.__module__}:{function.__qualname__}"


def _quoted(text: str) -> str:
    """Return a text as it is where Hydra reads the same text, else in quotes."""
    found = parsed(f"key={text}") if _BARE.fullmatch(text) else None
    return text if found is not None and type(found.value()) is str and found.value() == text else quoted(text)


def _key(name: Any, key: str) -> str:
    """Return the key of a mapping that is a value: Hydra takes no quotes there."""
    written = re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(name))
    found = parsed(f"key={{{written}:0}}")
    if found is None or found.value() != {name: 0} or "${" in written:
        raise ConfigError(f"{key}: {name!r} cannot be the key of a mapping here; write it into a yaml (--config-dir)")
    return written
