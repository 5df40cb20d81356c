"""Composes configurations as Hydra does, and keeps from it what it must not run or write.

Hydra builds callbacks, launchers, sweepers and loggers, and writes copies of the configuration, before our code is
called. So all that is done here, where a configuration is composed:

- Targets in Hydra's own part are those of Hydra and of its installed plugins, and loggers those of Python and ours.
- Hydra's part, and ``allow_targets``, count from the command line and from the main configuration alone: a yaml of a
  folder that was added, such as an experiment that somebody sent, may say what is measured, and not which code runs.
- A secret becomes a reference to an environment variable of this process and its children.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hydra._internal.hydra as main_of_hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override, read_write
from typing_extensions import override

from search.config.overrides import key_of, parsed
from search.errors import ConfigError
from search.records.secrets import is_beside_reference, is_secret, remember

_TARGETS = ("hydra._internal.core_plugins.", "hydra_plugins.")
"""The beginnings of what Hydra may build."""
_LOGGING = frozenset({
    "logging.FileHandler", "logging.Filter", "logging.Formatter", "logging.NullHandler", "logging.StreamHandler",
    "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler", "colorlog.ColoredFormatter",
    "search.terminal.console.Messages", "search.terminal.plain_text.InertFormatter",
})  # fmt: skip
"""The classes that loggers may be made of."""
_LOADER = "ConfigLoaderImpl"
"""The name by which Hydra makes its loader."""
_OURS = {"hydra", "main", "schema"}
"""The providers of the search path that are not added by a user's folder."""
_SWEPT = "hydra.sweeper.params."
"""The parameters that a file may sweep; they reach the jobs as words of a command line."""
_ADMITTING = {
    "allow_targets": "it admits code",
    "executor.address": "the objects of that cluster are taken at their word",
}
"""Settings that decide which code runs, and how."""
_DECIDING = ("hydra", *_ADMITTING)
"""The beginnings of settings that a file may not sweep."""
_READS_ENVIRONMENT = re.compile(r"oc\.env|\$\{[^}:]*\$\{")
"""References to variables of the environment, and those that may turn out as one: their names are references."""
_WHOLE = re.compile(r"\$\{oc\.env:\w+\}")
_PLACES = ("storage", "tracker.uri")
"""The settings that may be a variable of the environment as a whole, wherever they are written: they have passwords."""
_OF_THE_RUN = (
    "runtime.", "overrides.", "job.override_dirname", "job.config_name", "searchpath", "help.",
)  # fmt: skip
"""Parts of Hydra's configuration that follow from the call, not from a file."""


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader of configurations, with our checks; launchers send it to other processes."""

    @override
    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Raise ConfigError for a target that is not allowed."""
        words = [_without_secret(word) for word in overrides]
        how = (run_mode, from_shell, validate_sweep_overrides)
        composed = super().load_configuration(config_name, words, *how)
        _require_targets(composed.hydra, "hydra")
        _require_loggers(composed.hydra)
        _require_given(words, composed.hydra)
        if self._has_added_folders() or composed.hydra.searchpath:
            own = [word for word in words if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
            plain = super().load_configuration(config_name, own, *how)
            _require_same(plain.hydra, composed.hydra)
            _require_admitted(words, plain, composed)
            _require_no_environment(words, plain, composed)
        _hide_secrets(composed)
        return composed

    def _has_added_folders(self) -> bool:
        return any(path.provider not in _OURS for path in self.config_search_path.get_path())


@contextmanager
def guarded() -> Iterator[None]:
    """Let Hydra compose by :class:`GuardedLoader` meanwhile."""
    before = vars(main_of_hydra)[_LOADER]
    setattr(main_of_hydra, _LOADER, GuardedLoader)
    try:
        yield
    finally:
        setattr(main_of_hydra, _LOADER, before)


def _without_secret(word: str) -> str:
    """Return a word of the command line with a reference in place of a secret. Raises ConfigError for several."""
    override = parsed(word)
    if override is None:
        return word
    key, value = key_of(override), override.value()
    if override.is_sweep_override():
        if is_secret(key, word.partition("=")[2]):
            raise ConfigError(f"{key}: a secret has one value for all jobs of a sweep; with commas it needs quotes")
        return word
    text = getattr(value, "text", value)  # in quotes
    if isinstance(text, dict | list) and any(is_secret(*leaf) for leaf in _leaves(_plain(text), key)):
        raise ConfigError(f"{key}: a secret within brackets would be written; give it by itself, as {key}.token=...")
    if isinstance(text, str) and is_beside_reference(text):
        raise ConfigError(
            f"{key}: a password beside a reference would be written; give the whole URL, or ${{oc.env:NAME}}"
        )
    if not isinstance(text, str | int) or "${" in str(text) or not is_secret(key, text):
        return word
    return f"{word.partition('=')[0]}={_reference(key, str(text))}"


def _plain(value: Any) -> Any:
    """Return what an override's value holds, without its quotes."""
    if isinstance(value, dict):
        return {str(_plain(name)): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else getattr(value, "text", value)


def _reference(path: str, secret: str) -> str:
    """Put ``secret`` into the environment and return what stands for it."""
    name = f"PARETUNE_{re.sub(r'[^A-Z0-9]+', '_', path.upper()).strip('_')}"
    while os.environ.get(name, secret) != secret:  # another setting's, or the user's own
        name += "_"
    os.environ[name] = secret
    remember(path, secret)
    return f"${{oc.env:{name}}}"


def _hide_secrets(node: DictConfig | ListConfig, path: str = "", named: str = "") -> None:
    """Put references in place of the secrets that files hold; ``named``: the setting that a list belongs to."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        where = f"{path}.{key}" if path else str(key)
        name = named if isinstance(node, ListConfig) else str(key)
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            if is_beside_reference(str(node._get_node(key))):
                raise ConfigError(
                    f"{where}: a password beside a reference would be written; put both into one variable"
                )
            continue
        value: Any = node[key]
        if isinstance(value, DictConfig | ListConfig):
            _hide_secrets(value, where, name)
        elif is_secret(name, value):
            with read_write(node), flag_override(node, "struct", False):
                node[key] = _reference(where, str(value))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree by path, references unresolved."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _leaves(value, f"{path}.{place}")
    else:
        yield path, node


def _written(node: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dicts and lists, references unresolved."""
    plain = OmegaConf.to_container(node, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _require_targets(node: DictConfig, path: str) -> None:
    for where, value in _leaves(_written(node), path):
        if where.endswith("._target_") and not str(value).startswith(_TARGETS):
            raise ConfigError(f"{where}: must begin with one of {', '.join(_TARGETS)}; got {value!r}")


def _require_loggers(node: DictConfig) -> None:
    """Raise ConfigError for a factory of a logger, handler, formatter or filter that is none of Python's or ours."""
    for part in ("job_logging", "hydra_logging"):
        for where, value in _leaves(_written(node[part]), f"hydra.{part}"):
            name = where.rpartition(".")[2]
            wrong = name in ("()", "class") and value not in _LOGGING
            if wrong or (isinstance(value, str) and value.startswith(("ext://", "cfg://")) and not _is_stream(value)):
                raise ConfigError(f"{where}: loggers are made of {', '.join(sorted(_LOGGING))} alone; got {value!r}")


def _is_stream(value: str) -> bool:
    return value in ("ext://sys.stdout", "ext://sys.stderr")


def _require_same(plain: DictConfig, composed: DictConfig) -> None:
    """Raise ConfigError where a yaml of an added folder changes how Hydra itself runs."""
    one, other = (dict(_leaves(_written(each), "hydra")) for each in (plain, composed))
    for where in sorted({*one, *other}):
        if one.get(where) == other.get(where) or where.startswith(tuple(f"hydra.{part}" for part in _OF_THE_RUN)):
            continue
        if where.startswith(_SWEPT) and not where.removeprefix(_SWEPT).lstrip("+~").startswith(_DECIDING):
            continue
        raise ConfigError(
            f"{where}: counts on the command line and in your main configuration, since it decides what runs here; a "
            f"yaml of --config-dir sets it to {other.get(where)!r}"
        )


def _require_admitted(words: list[str], plain: DictConfig, composed: DictConfig) -> None:
    """Raise ConfigError where a yaml of an added folder admits code, or a cluster whose objects would be unpickled."""
    given = {key_of(found) for found in map(parsed, words) if found is not None}
    for key, why in _ADMITTING.items():
        wanted = OmegaConf.select(composed, key)
        if wanted and key not in given and wanted != OmegaConf.select(plain, key):
            raise ConfigError(
                f"{key}: counts on the command line and in your main configuration, since {why}; a yaml of "
                f"--config-dir sets it. To keep it, add '{key}={_as_word(wanted)}'"
            )


def _require_given(words: list[str], composed: DictConfig) -> None:
    """Raise ConfigError for a word that stands in a file as if it had been given: the jobs of a sweep would get it."""
    for kind, listed in _written(composed.overrides).items():
        for word in listed:
            if word not in words:
                raise ConfigError(f"hydra.overrides.{kind}: follows from the command line; a file has {word!r} there")


def _require_no_environment(words: list[str], plain: DictConfig, composed: DictConfig) -> None:
    """Raise ConfigError where a yaml of an added folder reads the environment: its values would be written."""
    known = dict(_settings(plain))
    given = [(key_of(found), word) for word, found in zip(words, map(parsed, words)) if found is not None]
    for where, value in _settings(composed):
        if not isinstance(value, str) or not _READS_ENVIRONMENT.search(value) or known.get(where) == value:
            continue
        if any(f"{where}.".startswith(f"{key}.") and value in word for key, word in given):
            continue
        if not (where in _PLACES and _WHOLE.fullmatch(value)):
            raise ConfigError(
                f"{where}: a yaml of --config-dir may not read the environment, since its value would be written; "
                f"to allow it, give it on the command line, as '{where}={value}'"
            )


def _settings(composed: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the leaves that are the study's, and those that it sweeps, by path, references unresolved."""
    tree = _written(composed)
    yield from _leaves(tree.pop("hydra")["sweeper"].get("params"), _SWEPT.rstrip("."))
    for key, value in tree.items():
        yield from _leaves(value, key)


def _as_word(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, ListConfig) else str(value)
