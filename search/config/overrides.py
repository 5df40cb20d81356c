"""Prepares the words of the command line for Hydra: a value that its grammar refuses is quoted where that helps.

``model.path=./lr=0.1``, ``./ckpt (v2)`` or ``./modèle`` are values for a person and errors for Hydra's lexer. A value
that does not parse and does in quotes is meant as text. ``~`` is a shell's, which expands it only where a word begins.
Between double quotes ``\\n`` and ``\\t`` are a new line and a tab, as in YAML; Hydra leaves them two characters.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from search.errors import ConfigError

_WITH_VALUE = {
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c",
    "--info", "-i", "--experimental-rerun",
}  # fmt: skip
"""Options of Hydra whose value is the next word."""
_MULTIRUN = {"-m", "--multirun"}
_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)
_ESCAPE = re.compile(r"((?<!\\)(?:\\\\)*)\\([nt])")

OmegaConf.register_new_resolver("expanduser", lambda path: expanded(str(path)), replace=True)  # for conf/config.yaml


def readable(arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` as Hydra can read them: settings, then options; it takes settings in one row only.

    Raises ConfigError for a word that it cannot read at all.
    """
    many = bool(_MULTIRUN & set(arguments))
    settings: list[str] = []
    options: list[str] = []
    for before, word in zip(["", *arguments], arguments):
        value = before in _WITH_VALUE
        (options if value or word.startswith("-") else settings).append(word if value else _readable(word, many))
    return [*settings, *options]


def expanded(value: str) -> str:
    """Return ``value`` with ``~`` or ``~user`` at its beginning expanded, as a shell does where a word begins."""
    if not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:  # no such user: it is a name
        return value


def absolute(path: str) -> Path:
    """Return the absolute path that a person means, ``~`` expanded; of a user who does not exist it is a name."""
    return Path(expanded(path)).absolute()


def with_escapes(value: str) -> str:
    """Return ``value`` with new lines and tabs for ``\\n`` and ``\\t`` between double quotes."""
    return _QUOTED.sub(lambda found: _ESCAPE.sub(_escaped, found[0]) if found[0].startswith('"') else found[0], value)


def _escaped(found: re.Match[str]) -> str:
    return found[1] + {"n": "\n", "t": "\t"}[found[2]]


def quoted(value: str, quote: Quote = Quote.single) -> str:
    """Return ``value`` as quoted text of Hydra's grammar, in which ``${`` is no reference."""
    return QuotedString(literal(value), quote).with_quotes()


def literal(value: Any) -> Any:
    """Return ``value``, nested or not, so that OmegaConf takes ``${`` in its texts for these two characters."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, Mapping):
        return {key: literal(item) for key, item in value.items()}
    return [literal(item) for item in value] if isinstance(value, list) else value


def fixed_keys(words: Sequence[str]) -> set[str]:
    """Return the keys that ``words`` give one value, which is that of all jobs of a multirun."""
    found = (parsed(word) for word in words if not word.startswith("-"))
    return {key_of(override) for override in found if override is not None and not override.is_sweep_override()}


def key_of(override: Override) -> str:
    """Return the key that an override sets, whether it adds or changes it."""
    return str(override.get_key_element()).lstrip("+~")


def parsed(word: str) -> Override | None:
    """Return ``word`` as Hydra reads it, None where it cannot."""
    try:
        return _parser().parse_override(word)
    except HydraException:
        return None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _readable(word: str, many: bool) -> str:
    key, sign, value = word.partition("=")
    value = with_escapes(expanded(value))
    if word.startswith("-"):  # an option of Hydra
        return f"{key}{sign}{value}"
    if not sign and parsed(word) is None:
        raise ConfigError(f"expected key=value, got {word!r}")
    found = parsed(f"{key}{sign}{value}")
    if found is not None:
        return f"{key}={quoted(value)}" if _is_path_all_the_same(value, found) else f"{key}{sign}{value}"
    if parsed(f"{key}=x") is None:
        raise ConfigError(f"expected key=value, got {word!r}: {key!r} is no key")
    texts = f"{key}={','.join(_as_text(key, part) for part in (value.split(',') if many else [value]))}"
    if _is_structure(value) or parsed(texts) is None:
        raise ConfigError(
            f"{key}: cannot read {value!r}, where brackets, quotes or commas are out of place; "
            f"as a text it is written {key}={shlex.quote(quoted(value, Quote.double))}"
        )
    return texts


def _as_text(key: str, value: str) -> str:
    """Return ``value`` as it is where Hydra reads it as one, else in quotes."""
    return value if parsed(f"{key}={value}") is not None else quoted(value)


def _is_structure(value: str) -> bool:
    """Return whether ``value`` begins like a list, a mapping, a function or a quoted text, and is no existing path."""
    functions = tuple(f"{name}(" for name in _parser().functions.functions)
    return not _exists(value) and value.startswith(("[", "{", "'", '"', *functions))


def _is_path_all_the_same(value: str, found: Override) -> bool:
    """Return whether a value that Hydra reads as several values or as a list is a path that exists."""
    several = found.is_sweep_override() and not all(_exists(part) for part in value.split(","))
    return (several or isinstance(found.value(), list | dict)) and _exists(value)


def _exists(value: str) -> bool:
    """Return whether ``value`` is written as a path, with a slash, and exists."""
    try:
        return "/" in value and Path(value).exists()
    except (OSError, ValueError):  # too long, or with a character that no path has
        return False
