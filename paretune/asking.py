"""Turns the arguments of ``paretune.search`` into the words that ``paretune run`` takes for the same study.

Models and rows that are in memory are first written below the study's home, by their content.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from objectives.errors import ObjectiveError
from objectives.models.inspection import made_for
from objectives.models.inspection.folders import ASSET
from objectives.models.kept_model import keep_model
from objectives.tasks.data.kept_rows import keep_rows
from objectives.types import Head
from paretune.kinds import columns, groups, task_of
from paretune.words import KIND, TASKS, as_path, words_of
from search.config.overrides import expanded
from search.errors import ConfigError, ParetuneError
from search.terminal.quiet_log import quiet_log

ROWS = ("data", "calibration")
"""The settings of a task that may be rows in memory."""


@dataclass(frozen=True)
class Question:
    """The arguments of ``paretune.search``. ``settings``: all other keys of the command line, and ``head``,
    ``tokenizer``; ``overrides``: words of the command line, which win.
    """

    model: Any = None
    data: Any = None
    calibration: Any = None
    task: str | Mapping[str, Any] | None = None
    metric: str | Callable[..., Any] | None = None
    floor: float | None = None
    overrides: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Path] = field(default_factory=dict, init=False)
    """The files of rows that were in memory, by the argument that they came from."""

    @contextmanager
    def rows_named(self) -> Iterator[None]:
        """Let errors call rows that were in memory by their argument and number: ``data, row 3``."""
        try:
            yield
        except ParetuneError as error:
            error.message = self._named(error.message)
            raise

    def _named(self, text: str) -> str:
        for key, file in self.kept.items():
            text = re.sub(rf"(?<={re.escape(file.name)}, )line (\d+)", _row, text)
            for written in (str(file.absolute()), str(file), file.name):
                text = text.replace(written, key)
        return text

    def words(self) -> list[str]:
        """Return the words of the command line. Raises ConfigError."""
        self._require_fitting()
        others = {name: value for name, value in self.settings.items() if name not in ("head", "tokenizer")}
        try:
            task = self._task()  # a wrong row is said before a model is written
            several = self._several(others.pop(TASKS)) if isinstance(others.get(TASKS), Mapping) else {}
            parts = (self._model(), task, several, others)
        except ObjectiveError as error:
            raise ConfigError(str(error)) from error
        except OSError as error:
            raise ConfigError(f"home: cannot write to {self.home}: {error.strerror or error}") from error
        nodes = [node for node in (*task.values(), *several.values()) if isinstance(node, Mapping)]
        modules = {value.__module__ for node in nodes for value in node.values() if callable(value)}
        given = others.get("allow_targets") or []
        admitted = [given] if isinstance(given, str) else given
        if modules and isinstance(admitted, (list, tuple)):  # what is anything else is refused as on the command line
            others["allow_targets"] = [*admitted, *sorted(modules)]
        return [*(word for part in parts for word in words_of(part, groups())), *self.overrides]

    def _require_fitting(self) -> None:
        """Raise ConfigError for arguments that do not go together, and for overrides that are no words."""
        words = self.overrides
        if not isinstance(words, (list, tuple)) or not all(isinstance(each, str) for each in words):
            raise ConfigError(
                f"overrides: a list of words of the command line expected, as ['seed=3'], got {str(words)[:40]!r}"
            )
        is_loaded = self.model is not None and not isinstance(self.model, (str, os.PathLike))
        if self.settings.get("tokenizer") is not None and not is_loaded:
            raise ConfigError(
                "tokenizer: goes with a loaded model alone, a folder has its own; leave it out, or load the model"
            )
        head = self.settings.get("head")
        if head is not None and head not in get_args(Head):
            raise ConfigError(f"head: one of {', '.join(get_args(Head))} expected, got {str(head)[:40]!r}")
        of_one = {"task": self.task, "data": self.data, "calibration": self.calibration, "metric": self.metric}
        alone = next((name for name, given in of_one.items() if given is not None), None)
        tasks = self.settings.get(TASKS)
        example = "as tasks={'quiz': {'kind': 'choice', 'data': rows}, 'boolq': 'boolq'}"
        if tasks and alone is not None:
            raise ConfigError(f"{alone}: not together with tasks, each of which has its own, {example}")
        if isinstance(tasks, (list, tuple)) and not all(isinstance(each, str) for each in tasks):
            raise ConfigError(f"tasks: a list has names of tasks alone; with settings each has a name, {example}")

    @property
    def _names_task(self) -> bool:
        """Return whether a preset or an override names the task."""
        chosen = {word.partition("=")[0] for word in self.overrides} | set(self.settings)
        return bool({"task", "tasks", "experiment"} & chosen)

    @property
    def home(self) -> str:
        """Return the home folder as it was given, ``mlruns`` by default."""
        written = [word.partition("=")[2] for word in self.overrides if word.lstrip("+").startswith("home=")]
        return expanded(written[-1].strip("'\"") if written else as_path(self.settings.get("home") or "mlruns", "home"))

    # ---- the model

    def _model(self) -> dict[str, Any]:
        """Return the settings of the model."""
        if self.model is None:
            return {}
        path = self._path()
        return {"model": {KIND: self.settings.get("head") or _head(path), "path": path}}

    def _path(self) -> str:
        """Return the path of the model; one that is loaded is written below home."""
        if isinstance(self.model, (str, os.PathLike)):
            return expanded(os.fspath(self.model))
        home = Path(self.home)
        with quiet_log(home / "logs"):
            return str(keep_model(self.model, self.settings.get("tokenizer"), home / "models"))

    # ---- the task

    def _task(self) -> dict[str, Any]:
        """Return the settings of the task and of the floor."""
        beside = {"data": self.data, "calibration": self.calibration, "metric": self.metric}
        within = self.task if isinstance(self.task, Mapping) else {}
        twice = next((key for key in beside if beside[key] is not None and within.get(key) is not None), None)
        if twice is not None:
            raise ConfigError(f"{twice}: given twice, as {twice}= and in task; leave one of them out")
        task = self._node(self.task, "task")
        task |= {key: self._rows(beside[key], key) for key in ROWS if beside[key] is not None}
        if callable(self.metric):
            task = _scored_by(self.metric, task)
        elif self.metric is not None:
            task["metric"] = self.metric
        if task.get(KIND) is None and task.get("data") is not None and not self._names_task:
            task[KIND] = task_of(columns(task["data"]))
        floor = {} if self.floor is None else {"accuracy_floor": {"epsilon": self.floor}}
        return {**({"task": task} if task else {}), **floor}

    def _several(self, tasks: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of several tasks; each is the name of a choice, or a mapping as ``task`` is."""
        kinds: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for name, given in tasks.items():
            key = f"{TASKS}.{name}"
            if name == "weights":
                settings[key] = given
                continue
            node = self._node(given, key)
            kind, data = node.pop(KIND, None), node.get("data")
            if kind is None:
                if data is None:
                    raise ConfigError(f"{key}: its kind or its data is missing, as {{'kind': 'choice', 'data': rows}}")
                kind = task_of(columns(data, f"{key}.data"), key)
            kinds[name], settings[key] = kind, node
        return {TASKS: kinds, **settings}

    def _node(self, given: Any, key: str) -> dict[str, Any]:
        """Return the settings of a task that is given as the name of a choice, or as a mapping with its rows."""
        if isinstance(given, str):
            return {KIND: given}
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(
                f"{key}: the name of a task, or a mapping of its settings, as {{'kind': 'choice', 'data': rows}}, "
                f"expected, got {type(given).__name__} {str(given)[:40]!r}"
            )
        node = dict(given or {})
        odd = next((name for name in node if not isinstance(name, str)), None)
        if odd is not None:
            raise ConfigError(f"{key}: the names of settings are texts, got {type(odd).__name__} {odd!r}")
        if not isinstance(node.get(KIND), str | None):
            raise ConfigError(f"{key}: kind: the name of a task expected, got {str(node[KIND])[:40]!r}")
        return node | {name: self._rows(node[name], f"{key}.{name}") for name in ROWS if node.get(name) is not None}

    def _rows(self, given: Any, key: str) -> str:
        """Return the path of the rows; those that are in memory are written below home."""
        if isinstance(given, (str, os.PathLike)):
            return expanded(os.fspath(given))
        if _is_frame(given):
            twice = given.columns[given.columns.duplicated()]
            if len(twice):
                raise ConfigError(f"{key}: the DataFrame has two columns called {twice[0]!r}; rename one of them")
            given = given.astype(object).where(given.notna(), None).to_dict("records")
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            raise ConfigError(
                f"{key}: a path, a list of mappings from columns to values, or a DataFrame expected, got "
                f"{type(given).__name__}"
            )
        file = keep_rows(given, key, Path(self.home) / "data")
        self.kept[key] = file
        return str(file)


def _row(found: re.Match[str]) -> str:
    """Return the number of a row, from 0, in place of that of its line."""
    return f"row {int(found[1]) - 1}"


def _is_frame(value: Any) -> bool:
    """Return whether ``value`` is a DataFrame of pandas, which is loaded where somebody has one."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _head(path: str) -> Head:
    """Return the head that a checkpoint was made for. Raises ConfigError where its files are not here yet."""
    if path.startswith(ASSET):
        from objectives import assets

        assets.locate(path.removeprefix(ASSET))
    head = made_for(path)
    if head is None:
        raise ConfigError(
            f"head: {path} is not downloaded yet; give one of {', '.join(get_args(Head))}, as head='causal_lm'"
        )
    return head


def _scored_by(function: Callable[..., Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a task that a function of the user's scores. Raises ConfigError.

    Where the task has a ``function`` already, which answers, the one that is given here makes a number of its answers.
    """
    kind = task.get(KIND, "custom")
    if kind not in ("custom", "custom_rows"):
        raise ConfigError(f"metric: a function is scored by task='custom' or 'custom_rows', got task={kind!r}")
    return {**task, KIND: kind, "metric" if "function" in task else "function": function}
