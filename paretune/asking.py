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
from paretune.words import KIND, TASKS, words_of
from search.config.overrides import expanded
from search.errors import ConfigError, ParetuneError
from search.terminal.quiet_log import quiet_log


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
            name = re.escape(file.name)
            text = re.sub(rf"{name}, line (\d+)", lambda found: f"{key}, row {int(found[1]) - 1}", text)  # noqa: B023
            text = re.sub(rf"\S*{name}", key, text)
        return text

    def words(self) -> list[str]:
        """Return the words of the command line. Raises ConfigError."""
        if isinstance(self.overrides, str):
            raise ConfigError(
                f"overrides: a list of words of the command line expected, got the text {self.overrides!r}"
            )
        others = {name: value for name, value in self.settings.items() if name not in ("head", "tokenizer")}
        try:
            task = self._task()  # a wrong row is said before a model is written
            several = self._several(others.pop(TASKS)) if isinstance(others.get(TASKS), Mapping) else {}
            parts = (self._model(), task, several, others)
        except ObjectiveError as error:
            raise ConfigError(str(error)) from error
        except OSError as error:
            raise ConfigError(f"home: cannot write to {self.home}: {error.strerror or error}") from error
        nodes = [task.get("task", {}), *several.values()]
        modules = {value.__module__ for node in nodes for value in node.values() if callable(value)}
        if modules:
            given = others.get("allow_targets") or []
            others["allow_targets"] = [*([given] if isinstance(given, str) else given), *sorted(modules)]
        return [*(word for part in parts for word in words_of(part, groups())), *self.overrides]

    @property
    def _names_task(self) -> bool:
        """Return whether a preset or an override names the task."""
        chosen = {word.partition("=")[0] for word in self.overrides} | set(self.settings)
        return bool({"task", "tasks", "experiment"} & chosen)

    @property
    def home(self) -> str:
        """Return the home folder as it was given, ``mlruns`` by default."""
        written = [word.partition("=")[2] for word in self.overrides if word.lstrip("+").startswith("home=")]
        return expanded(written[-1].strip("'\"") if written else os.fspath(self.settings.get("home") or "mlruns"))

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
        task = {KIND: self.task} if isinstance(self.task, str) else dict(self.task or {})
        given = {"data": self.data, "calibration": self.calibration}
        task |= {key: self._rows(rows, key) for key, rows in given.items() if rows is not None}
        if callable(self.metric):
            task = _scored_by(self.metric, task)
        elif self.metric is not None:
            task["metric"] = self.metric
        if KIND not in task and "data" in task and not self._names_task:
            task[KIND] = task_of(columns(task["data"]))
        floor = {} if self.floor is None else {"accuracy_floor": {"epsilon": self.floor}}
        return {**({"task": task} if task else {}), **floor}

    def _several(self, tasks: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of several tasks; each is the name of a choice, or a mapping as ``task`` is."""
        kinds: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for name, given in tasks.items():
            node = dict(given) if isinstance(given, Mapping) else {KIND: given}
            if name == "weights":
                settings[f"{TASKS}.weights"] = given
                continue
            for key in ("data", "calibration"):
                if node.get(key) is not None:
                    node[key] = self._rows(node[key], f"{TASKS}.{name}.{key}")
            kinds[name] = node.pop(KIND, None) or task_of(columns(node.get("data", "")))
            settings[f"{TASKS}.{name}"] = node
        return {TASKS: kinds, **settings}

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
