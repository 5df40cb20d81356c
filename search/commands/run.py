"""``paretune run [settings]``: run a study or continue it; with ``-m`` run one study for each combination of settings.

Hydra composes the configuration from ``conf/`` and the words of the command line; one Hydra job runs one study.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from objectives.types import Reason
from search.commands.leftovers import clear_refused
from search.config.composing_errors import gist
from search.config.guarded_loader import guarded
from search.config.overrides import absolute, fixed_keys, key_of, parsed, readable
from search.config.tasks import spread
from search.errors import BaselineFailed, ConfigError, ParetuneError
from search.records.names import name_of
from search.records.secrets import remember_all
from search.space.instantiate import nearest
from search.terminal.console import err, prepare_streams
from search.terminal.plain_text import one_line

if TYPE_CHECKING:
    from search.config.study_config import StudyConfig
    from search.study.study import StudyResult

T = TypeVar("T")

_PACKAGED = Path(__file__).resolve().parents[1] / "_conf"
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[2] / "conf"
"""The folder of the yaml files: inside the wheel, or beside the sources."""

_UNEXPLAINED = {Reason.CRASHED.value, Reason.TIMEOUT.value, Reason.ERROR.value}
_UNSWEPT = ("study_name", "n_trials", "executor", "tracker", "hydra", "debug", "home", "storage")


def main(arguments: list[str]) -> int:
    """Compose the configuration, run the study and return its exit code; of a multirun, the first failed job's."""
    words = spread(readable(arguments))
    _require_options(words)
    job = _Job(fixed_keys(words), _home_of(words).is_dir())
    # Hydra would print its own errors, over several lines, and exit with 1; raised, they become one line here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["paretune run", *words]
    try:
        with guarded():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except ParetuneError:
        raise
    except Exception as error:
        if "debug=true" in arguments or job.started:
            raise
        if isinstance(error, OSError) and error.strerror:  # Hydra makes its folder below home before it calls the job
            raise ConfigError(f"home: cannot make {error.filename}: {error.strerror}; choose another folder") from error
        raise ConfigError(f"{gist(error)} (given: {' '.join(arguments)})") from error
    if job.error is not None:
        raise job.error
    return job.code


def _require_options(words: Sequence[str]) -> None:
    """Raise ConfigError for an option that Hydra does not know: its own parser would print a page and exit."""
    parser = get_args_parser()
    said = StringIO()
    try:
        with redirect_stderr(said):
            _, unknown = parser.parse_known_args([word for word in words if word not in {"-h", "--help"}])
    except SystemExit as error:
        lines = said.getvalue().strip().splitlines() or ["an option is wrong"]
        raise ConfigError(lines[-1].partition("error: ")[2] or lines[-1]) from error
    wrong = next((word for word in unknown if word.startswith("-")), None)
    if wrong is not None:
        known = sorted(option for action in parser._actions for option in action.option_strings if len(option) > 2)
        raise ConfigError(f"unknown option {wrong}{nearest(wrong, known)}; known: {', '.join(known)}")


class _Job:
    """One Hydra job, of an importable class, so that launchers can pickle it and run it in other processes."""

    __name__ = "run"

    def __init__(self, fixed: set[str], home_was_there: bool) -> None:
        """Prepare the job of a command line.

        ``fixed``: keys that have one value for all jobs of a multirun; ``home_was_there``: whether the home existed.
        """
        self.fixed, self.home_was_there = fixed, home_was_there
        self.started = False
        self.code = 0
        self.error: ParetuneError | None = None

    def __call__(self, composed: DictConfig) -> None:
        """Run the study of a composed configuration.

        A single run keeps its outcome in ``code`` and ``error``, since Hydra would decorate an exception. A job of a
        multirun raises its failure, since Hydra stops at nothing else.
        """
        prepare_streams()  # a launcher may run this in another process
        self.started = True
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _run_one_of_many(composed, _swept(self.fixed), self.home_was_there)
            return
        try:
            self.code = run_job(plain(composed), "")
        except ParetuneError as error:
            self.error = error
            _clear(error, composed, self.home_was_there)


def _run_one_of_many(composed: DictConfig, swept: str, home_was_there: bool) -> None:
    job = swept or HydraConfig.get().job.num
    try:
        code = run_job(plain(composed), swept)
    except ParetuneError as error:
        _clear(error, composed, home_was_there)
        print(f"paretune: job {job}: {one_line(str(error))}", file=sys.stderr)
        raise ParetuneError(f"job {job} failed: {error}", error.exit_code) from error
    if code >= 128:  # a signal is meant for the whole sweep: no launcher goes on after SystemExit
        raise SystemExit(code)
    if code:
        raise ParetuneError(f"job {job} ended with exit code {code}", code)


def _clear(error: ParetuneError, composed: DictConfig, home_was_there: bool) -> None:
    """Remove the folders of a job that was refused."""
    home = absolute(str(composed.home))
    clear_refused(error, Path(HydraConfig.get().runtime.output_dir).absolute(), home, home_was_there)


def _home_of(words: Sequence[str]) -> Path:
    """Return the home that the command line asks for, as an absolute path."""
    given = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("home=")]
    return absolute(given[-1].strip("'\"") if given else "mlruns")


def plain(composed: DictConfig) -> dict[str, Any]:
    """Return the configuration as resolved dicts and lists, and note its secrets, so that no text shows them.

    Raises ConfigError where a required setting is missing.
    """
    try:
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}: required, got nothing; give {error.full_key}=<value>") from error
    except OmegaConfBaseException as error:
        raise ConfigError(gist(error)) from error
    assert isinstance(resolved, dict)
    remember_all(resolved)
    return {str(key): value for key, value in resolved.items()}


def run_job(resolved: dict[str, Any], swept: str) -> int:
    """Run one study from its configuration to its report and return the exit code."""
    from search.config.study_config import build_config
    from search.reporting.finish import finish
    from search.study.preflight import preflighted

    return conduct(preflighted(build_config(resolved, swept)), finish)


def conduct(config: StudyConfig, end: Callable[[StudyResult], T]) -> T:
    """Run a study and return what ``end`` makes of its result; a log keeps what libraries say meanwhile."""
    from search.executors.signals import sigterm_interrupts
    from search.study.progress import make_progress
    from search.study.study import run_study
    from search.terminal.quiet_log import quiet_log, remove_log

    with sigterm_interrupts(), quiet_log(config.home / "logs") as log:
        try:
            with make_progress(config) as progress:
                result = run_study(config, progress)
        except BaselineFailed as error:
            raise BaselineFailed(f"{error}; what libraries said is in {log}", error.exit_code) from error
        except ParetuneError as error:
            if error.exit_code == ConfigError.exit_code:  # refused: nothing was done that a log could tell of
                remove_log(log)
            raise
        ended = end(result)
        if any(record.reason in _UNEXPLAINED for record in result.records):
            print(f"what libraries said of trials that failed is in {log}", file=err())
        return ended


def _swept(fixed: set[str]) -> str:
    """Return what tells this job of a multirun from its siblings, fit for a name; empty where nothing is swept."""
    params = HydraConfig.get().sweeper.get("params") or {}
    fixed = fixed | fixed_keys([f"{key}={value}" for key, value in params.items()])
    overrides = [(text, parsed(text)) for text in HydraConfig.get().overrides.task]
    return name_of(
        [
            text.lstrip("+~")
            for text, override in overrides
            if override is None or not (key_of(override) in fixed or key_of(override).startswith(_UNSWEPT))
        ]
    )
