"""Runs a study from Python, or opens one that is stored; both return a :class:`paretune.study.Study`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from paretune.asking import Question
from paretune.study import Study
from paretune.words import FOREIGN, as_path
from search.commands.composition import config_of
from search.commands.run import conduct
from search.commands.stored_study import load
from search.config.study_config import StudyConfig
from search.errors import ConfigError, Interrupted
from search.executors.in_process import InProcess
from search.reporting.finish import Unwritten, report_and_track
from search.terminal.console import warnings_shown

if TYPE_CHECKING:
    from search.study.study import StudyResult


def search(
    model: Any = None,
    data: Any = None,
    calibration: Any = None,
    task: str | Mapping[str, Any] | None = None,
    metric: str | Callable[..., Any] | None = None,
    floor: float | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Study:
    """Run a study or continue it, as ``paretune run`` does, and return it.

    ``model``: a folder, a hub id, ``asset:<name>`` or a loaded ``PreTrainedModel`` (``tokenizer=`` where it cannot be
    found; ``head=`` where it is not clear). ``data``, ``calibration``: a path, a list of mappings from columns to
    values, or a DataFrame. ``task``: the name of a yaml below ``conf/task``, or its settings, as ``{"kind": "choice",
    "text": "question"}``; guessed where the columns leave no choice. ``metric``: a name that the kind knows, or a
    function. ``floor``: ``accuracy_floor.epsilon``. ``settings``: any other key of the command line, nested or dotted.
    ``overrides``: words of the command line, which win.

    Raises ParetuneError: ConfigError for bad input, StudyConflict, BaselineFailed, and Interrupted after a signal, when
    what was measured is stored and reported. A study without a feasible trial is returned: its front is empty.
    """
    with _environment_kept():
        question = Question(model, data, calibration, task, metric, floor, overrides, settings)
        with question.rows_named():
            words = question.words()
        with warnings_shown(), question.rows_named():
            config = config_of(words)
            _require_importable(config)
            result = conduct(config, _reported)
        if result.interrupted is not None:
            place = f"paretune.open({config.name!r}, home={question.home!r})"
            raise Interrupted(
                f"{result.interrupted}; the same call goes on, {place} has what was measured",
                result.interrupted.exit_code,
            )
        return Study(_stored(config), tuple(words))


def open(study: str = "latest", home: str | os.PathLike[str] = "mlruns", storage: str | None = None) -> Study:
    """Open a stored study by its name, the latest by default. Raises ConfigError."""
    where = [f"home={as_path(home, 'home')}", *([] if storage is None else [f"storage={storage}"])]
    return Study(load([f"study={study}", *where]))


def _stored(config: StudyConfig) -> Any:
    return load([f"study={config.name}", f"home={config.home}", f"storage={config.storage}"])


def _reported(result: StudyResult) -> StudyResult:
    try:
        report_and_track(result)
    except Unwritten as error:  # the study is there all the same
        warnings.warn(str(error), stacklevel=2)
    return result


def _require_importable(config: StudyConfig) -> None:
    """Raise ConfigError where a class of the user's own script would have to be imported by the worker."""
    admitted = config.resolved.get("allow_targets") or []
    if not isinstance(config.executor, InProcess) and any(name.rstrip(".") == FOREIGN for name in admitted):
        raise ConfigError(
            "allow_targets: the worker process cannot import classes of a script or notebook (__main__); write them "
            "into a module, or give executor='in_process'"
        )


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back the environment variables that are added meanwhile: those for the worker, and those of libraries."""
    before = set(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            os.environ.pop(name, None)
