"""A study as Python sees it: its front, trials and winner, as tables and folders."""

from __future__ import annotations

import json
from functools import cached_property, partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import objectives
from objectives.export.formats import ENGINE
from paretune.words import as_path, flat
from search.commands import export, report
from search.commands.stored_study import StoredStudy, load
from search.errors import NothingFeasible
from search.front.table import frame, searched_columns
from search.records.trial import TrialRecord, Value
from search.reporting.finish import print_result
from search.reporting.markdown import markdown
from search.reporting.study_info import StudyInfo
from search.reporting.tables import rows_of
from search.terminal.plain_text import inert_tree

if TYPE_CHECKING:
    import pandas as pd

    from objectives.runtime.engines.runner import EngineRunner
    from objectives.runtime.in_torch.runner import TorchRunner

_WIDTH = 140
"""Columns of the table that ``print`` shows."""


class Study:
    """A study as it is stored. All figures are in base units: seconds, bytes, tokens/s, fractions in [0, 1].

    ``words``: what ``paretune run`` takes for the same study; empty for one that was opened.
    """

    def __init__(self, stored: StoredStudy, words: tuple[str, ...] = ()) -> None:
        self._stored, self.words = stored, words

    @property
    def name(self) -> str:
        """Return the name under which the study is stored."""
        return self._stored.config.name

    @property
    def floor(self) -> float:
        """Return the accuracy floor, as an accuracy."""
        return self._stored.front.floor

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Return all trials, a row each, by trial number; the columns are those of ``trials.csv``."""
        return frame(self._stored.records, self._stored.front, self._info.fixed).set_index("trial")

    @property
    def front(self) -> pd.DataFrame:
        """Return the members of the Pareto front, the best in the first objective first."""
        return self.trials.loc[list(self._stored.front.front)]

    @property
    def baseline(self) -> pd.Series[Any]:
        """Return the row of the unpruned model in 16 bits."""
        return self._row(self._info.baseline)

    @property
    def best(self) -> pd.Series[Any]:
        """Return the row of the recommended candidate. Raises NothingFeasible."""
        return self._row(self._best.number)

    @property
    def best_params(self) -> dict[str, Value]:
        """Return what the search chose for the recommended candidate, by dotted path. Raises NothingFeasible."""
        return dict(self._best.params)

    @property
    def best_metrics(self) -> dict[str, float]:
        """Return what was measured of the recommended candidate. Raises NothingFeasible."""
        return dict(self._best.metrics)

    @property
    def report(self) -> Path:
        """Return the page ``report.html``; it is written where it is not there yet."""
        folder = report.folder_of(self._stored)
        if self._stored.recut or not (folder / "report.html").is_file():
            report.write(self._stored, self._info, folder)
        return folder / "report.html"

    def recut(self, floor: float | None = None, **settings: Any) -> Study:
        """Return the study above another floor, or with other ``objectives`` or ``tradeoff``; measure nothing.

        ``floor``: ``accuracy_floor.epsilon``. Raises ConfigError for a key that cannot be changed afterwards.
        """
        given = {**({} if floor is None else {"accuracy_floor.epsilon": floor}), **settings}
        pairs = [pair for key, value in given.items() for pair in flat(key, value)]
        return Study(
            self._reloaded([f"{path}={json.dumps(value, default=float)}" for path, value in pairs]), self.words
        )

    def export(
        self, folder: str | Path, trial: int | None = None, objective: str | None = None, format: str = ENGINE
    ) -> Path:
        """Write a candidate as a folder that ``paretune.load`` reads, and return the folder.

        The candidate: the recommended one, the front's best in ``objective``, or that of ``trial``. It is compressed
        again in this process.

        ``format``: a stock format, as ``paretune export`` takes it. Its folder is for other engines, and its card says
        which of them were seen to load it. Raises ConfigError, NothingFeasible, and StudyConflict where its inputs have
        changed.
        """
        place = Path(as_path(folder, "folder"))
        asked = {"trial": trial, "objective": objective}
        options = {name: str(value) for name, value in asked.items() if value is not None}
        write = export.write if export.known_format(format) == ENGINE else partial(export.write_stock, format=format)
        write(self._stored, export.chosen(self._stored, options), place)
        return place

    def load(self) -> TorchRunner | EngineRunner:
        """Load the recommended candidate as ``paretune.load`` does, from ``<home>/winners``, where it is kept."""
        best = self._best
        folder = self._stored.config.home / "winners" / f"{report.folder_of(self._stored).name}-{best.number}"
        if not folder.is_dir():
            export.write(self._stored, best, folder)
        return objectives.load(folder, export.modules_of(self._stored, best))

    def __repr__(self) -> str:
        """Return the result as the terminal shows it."""
        shown = StringIO()
        console = Console(file=shown, width=_WIDTH, no_color=True, force_jupyter=False, force_terminal=False)
        print_result(console, self._info, self._stored.records, self._stored.front)
        return "\n".join(line.rstrip() for line in shown.getvalue().splitlines())

    def _repr_markdown_(self) -> str:
        """Return the result as a notebook shows it."""
        records, front = inert_tree(list(self._stored.records)), self._stored.front
        info, searched = inert_tree(self._info), tuple(searched_columns(records).values())
        return markdown(info, rows_of(frame(records, front, info.fixed)), front, searched)

    def _row(self, number: int | None) -> pd.Series[Any]:
        return self.trials.loc[[number]].iloc[0]

    @cached_property
    def _info(self) -> StudyInfo:
        return report.info_of(self._stored)

    @property
    def _best(self) -> TrialRecord:
        if not self._stored.front.front:
            raise NothingFeasible(f"no trial of {self.name} reaches the accuracy floor {self.floor:.4f}")
        return export.chosen(self._stored, {})

    def _reloaded(self, words: list[str]) -> StoredStudy:
        config = self._stored.config
        return load([f"study={config.name}", f"home={config.home}", f"storage={config.storage}", *words])
