"""The settings that every task with rows of its own shares: which files, how many rows, and who calibrates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.optional import Packaged, Remarking
from objectives.settings import Count, Name, Natural
from objectives.tasks.data.file_states import State, state_of
from objectives.tasks.data.files import KEPT, Unit, files_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.split import Divided, contents, divide

ROWS_FORBID = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)
"""Config of these settings: ``calibration`` is a file in a yaml, and a method of every task."""


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class FromFiles(Remarking, Packaged):
    """Rows from files.

    ``data``: the file or folder that is scored; ``calibration``: the one that calibrates, where there is one; without
    it some rows of ``data`` calibrate. ``calibration_rows``: how many at most. ``limit``: how many rows are scored,
    drawn by ``seed``; all by default.
    """

    data: Name
    calibration_data: Name | None = Field(default=None, validation_alias="calibration")
    calibration_rows: Count = 64
    limit: Count | None = None
    seed: Natural = 0

    @property
    def unit(self) -> Unit:
        """Return what an example of a txt file is."""
        return "line"

    @property
    @override
    def packages(self) -> tuple[str, ...]:
        """Return what turns texts into tokens; a task whose metric needs a package adds it."""
        return ("tokenizers",)

    def distinct(self, rows: Sequence[Row]) -> Sequence[str]:
        """Return the text of each row that tells it from others: of two with the same, one cannot be scored fairly.

        All that a row holds by default; a task that knows what its model reads says that.
        """
        return contents(rows)

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return a line on how the rows of a single file were divided."""
        remark = self.divided().remark
        return (remark,) if remark else ()

    def divided(self) -> Divided:
        """Return the rows that calibrate and those that are scored. Raises DataError.

        While the files are as they were they are not read again, but opened: a study notes its inputs by that.
        """
        files = files_of(self.data, "task.data")
        if self.calibration_data is not None:
            files += files_of(self.calibration_data, "task.calibration")
        reader = self if self.calibration_data is None else None
        kept = _divided if reader is None or _is_hashable(reader) else _divided.__wrapped__
        found: Divided = kept(
            tuple(map(state_of, files)), reader, self.data, self.calibration_data, self.calibration_rows, self.limit,
            self.seed, self.unit,
        )  # fmt: skip
        return found


def _is_hashable(reader: FromFiles) -> bool:
    """Return whether a task can be the key of what is kept; one of a user's own may hold lists."""
    try:
        hash(reader)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=KEPT)
def _divided(_states: Sequence[State], reader: FromFiles | None, *asked: Any) -> Divided:
    data, calibration, rows, limit, seed, unit = asked
    texts = contents if reader is None else reader.distinct
    return divide(data, calibration, rows=rows, limit=limit, seed=seed, unit=unit, texts=texts)
