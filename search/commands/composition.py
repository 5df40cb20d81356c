"""Composes the configuration from the words of the command line, for the commands that run no Hydra job."""

from __future__ import annotations

import os

from hydra import compose, initialize_config_dir

from search.commands.run import CONF, plain
from search.config.composing_errors import gist
from search.config.guarded_loader import guarded
from search.config.overrides import expanded, quoted, readable
from search.config.study_config import StudyConfig, build_config
from search.config.tasks import spread
from search.errors import ConfigError, ParetuneError
from search.study.preflight import preflighted


def config_of(arguments: list[str]) -> StudyConfig:
    """Return the configuration that ``run`` would compose from these words, checked. Raises ConfigError."""
    folder, given = _config_folder(arguments)
    given = spread(readable(given))
    overrides = [f"hydra.searchpath=[{quoted(f'file://{folder}')}]", *given] if folder else given
    try:
        with guarded(), initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides)
        resolved = plain(composed)
    except ParetuneError:
        raise
    except Exception as error:  # Hydra's many
        raise ConfigError(f"{gist(error)} (given: {' '.join(arguments)})") from error
    return preflighted(build_config(resolved))


def _config_folder(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the absolute folder that ``--config-dir`` names, or None, and all other words. Raises ConfigError."""
    rest = [word for each in arguments for word in (each.split("=", 1) if each.startswith("--config-dir=") else [each])]
    folder = None
    if "--config-dir" in rest:
        place = rest.index("--config-dir")
        if place + 1 == len(rest):
            raise ConfigError("--config-dir: a folder expected, got nothing")
        folder = os.path.abspath(expanded(rest[place + 1]))
        if not os.path.isdir(folder):
            raise ConfigError(f"--config-dir: no such folder: {folder}")
        del rest[place : place + 2]
    return folder, rest
