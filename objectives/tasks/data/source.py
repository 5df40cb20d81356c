"""The settings that every task with rows of its own shares: which files, how many rows, and who calibrates."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.optional import Remarking
from objectives.settings import Count, Name, Natural
from objectives.tasks.data.files import Unit
from objectives.tasks.data.split import Divided, divide

ROWS_FORBID = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)
"""Config of these settings: ``calibration`` is a file in a yaml, and a method of every task."""


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class FromFiles(Remarking):
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

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return a line on how the rows of a single file were divided."""
        remark = self.divided().remark
        return (remark,) if remark else ()

    def divided(self) -> Divided:
        """Read the files and return the rows that calibrate and those that are scored. Raises DataError."""
        return divide(
            self.data, self.calibration_data, rows=self.calibration_rows, limit=self.limit, seed=self.seed,
            unit=self.unit,
        )  # fmt: skip
