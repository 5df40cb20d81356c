"""The settings that every task with rows of its own shares: which files, how many rows, and who calibrates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded, Packaged, Readable, Remarking, Supplied
from objectives.protocols.task import PartiallyScorable
from objectives.settings import Count, Name, Natural
from objectives.tasks.batching import USUAL
from objectives.tasks.data.file_states import State, state_of
from objectives.tasks.data.files import KEPT, files_of
from objectives.tasks.data.rows import Row
from objectives.tasks.data.split import Divided, contents, divide
from objectives.tasks.data.txt import Unit
from objectives.tasks.overlap import Excerpts, Exposed, excerpt
from objectives.tasks.partial_scores import Reader, merged
from objectives.types import Score

if TYPE_CHECKING:
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

ROWS_FORBID = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)
"""Config of these settings: ``calibration`` is a file in a yaml, and a method of every task."""


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class FromFiles(Remarking, Packaged, Exposed):
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
        """Return lines on how the rows of a single file were divided, and on texts that hold no line break."""
        return tuple(filter(None, (self.divided().remark, *_backslashes(self))))

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        """Return the rows that calibrate and those that are scored, each by the text that tells it from others."""
        divided = self.divided()
        calibration, scored = (
            [excerpt(row.place, [text]) for row, text in zip(rows, self.distinct(rows))]
            for rows in (divided.calibration, divided.scored)
        )
        return Excerpts(calibration, scored, remarks=self.losses(model))

    def losses(self, model: LoadedModel) -> Sequence[str]:
        """Return lines on what of the rows is not read: texts that are cut or left out. Raises for rows of no use."""
        return ()

    def divided(self) -> Divided:
        """Return the rows that calibrate and those that are scored. Raises DataError.

        While the files are as they were they are not read again, but opened: a study notes its inputs by that.
        """
        files = files_of(self.data, "task.data")
        if self.calibration_data is not None:
            files += files_of(self.calibration_data, "task.calibration")
        kept = _divided if _is_hashable(self) else _divided.__wrapped__
        found: Divided = kept(
            tuple(map(state_of, files)), self, self.data, self.calibration_data, self.calibration_rows, self.limit,
            self.seed, self.unit,
        )  # fmt: skip
        return found


_CODE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
"""Jinja's part of a template, whose own texts may hold a backslash."""


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class FromRows(FromFiles, PartiallyScorable, Bounded, Supplied):
    """Rows from files whose score is that of all parts together."""

    @override
    def evaluate(self, model: Runner) -> Score:
        """Score ``model`` on all examples; the class says what one is."""
        return merged(list(self.parts(model, range(self.examples(model)))))

    def examples(self, model: Reader) -> int:
        """Return how many examples there are: one for each scored row."""
        return len(self.divided().scored)


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class ForEncoders(FromRows, Readable):
    """Rows that encoders read.

    ``tokens``: the longest row; by default what the model holds, and ``usual`` at most. ``batch_rows``: how many run at
    a time.
    """

    usual: ClassVar[int] = USUAL

    tokens: Count | None = None
    batch_rows: Count = 32

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return () if self.tokens is None else (Span(("tokens",), (self.tokens,), "encoder"),)

    @property
    @override
    def longest(self) -> int:
        return self.tokens or self.usual


def _is_hashable(reader: FromFiles) -> bool:
    """Return whether a task can be the key of what is kept; one of a user's own may hold lists."""
    try:
        hash(reader)
    except TypeError:
        return False
    return True


def _backslashes(reader: FromFiles) -> Iterator[str]:
    r"""Yield a line for every setting with a backslash and an n, as a command line gives ``\n`` outside of quotes."""
    for field in fields(reader):
        value = getattr(reader, field.name)
        texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
        if any("\\n" in _CODE.sub("", text) for text in texts if isinstance(text, str)):
            yield (
                f"task.{field.name}: holds a backslash and an n, no line break; double quotes within single ones make "
                f"one: 'task.{field.name}=\"...\\n...\"'"
            )


@lru_cache(maxsize=KEPT)
def _divided(_states: Sequence[State], reader: FromFiles, *asked: Any) -> Divided:
    data, calibration, rows, limit, seed, unit = asked
    return divide(data, calibration, rows=rows, limit=limit, seed=seed, unit=unit, texts=reader.distinct)
