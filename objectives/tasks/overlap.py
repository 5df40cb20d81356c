"""Checks that no text both calibrates and is scored: a model that was fitted to a text answers it better than others.

Two rows count as the same where their texts are equal but for white space, or where the same tokens are read of them.
Our tasks leave such copies out of what they score, and say so. A task that can tell its rows (:class:`Exposed`) is
checked, which matters where several tasks serve one model. The module is free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from objectives.errors import TaskError
from objectives.protocols.task import Task

if TYPE_CHECKING:
    from objectives.models import LoadedModel

_SHOWN = 3


@dataclass(frozen=True)
class Excerpt:
    """A row: its name, and its ``keys``; two rows are the same where they share any of them."""

    name: str
    keys: frozenset[str]


@dataclass(frozen=True)
class Excerpts:
    """The rows that calibrate and that are scored.

    ``left_out``: copies of the former, which are not scored. ``remarks``: further lines for a person, such as how many
    rows are cut.
    """

    calibration: Sequence[Excerpt] = field(default=())
    scored: Sequence[Excerpt] = field(default=())
    left_out: Sequence[tuple[str, str]] = field(default=())
    remarks: Sequence[str] = field(default=())


@runtime_checkable
class Exposed(Protocol):
    """A task that can tell its rows."""

    def excerpts(self, model: LoadedModel) -> Excerpts:
        """Return the rows that calibrate and those that are scored."""


def excerpt(name: str, texts: Iterable[str], ids: Sequence[int] = ()) -> Excerpt:
    """Make an excerpt of ``texts`` and of the token ids that are read of them."""
    keys = {"text " + " ".join(text.split()) for text in texts if text.strip()}
    return Excerpt(name, frozenset(keys | ({"ids " + " ".join(map(str, ids))} if len(ids) else set())))


def copy_of(row: Excerpt, calibration: Iterable[Excerpt]) -> str | None:
    """Return the name of the calibration row that ``row`` is a copy of; None where it is no copy."""
    return next((each.name for each in calibration if each.keys & row.keys), None)


def require_disjoint(task: Task, model: LoadedModel) -> str:
    """Return a line about copies that a task leaves out and what else it remarks, empty where there is nothing.

    Raises TaskError where a scored row calibrates too, with how many, which ones, and what to do.
    """
    if not isinstance(task, Exposed):
        return ""
    rows = task.excerpts(model)
    held: Mapping[str, str] = {key: each.name for each in rows.calibration for key in each.keys}
    shared = [(each.name, sorted(each.keys & held.keys())) for each in rows.scored]
    pairs = [(name, held[keys[0]]) for name, keys in shared if keys]
    if pairs:
        raise TaskError(
            f"task: {len(pairs)} of {len(rows.scored)} scored rows calibrate too, by their text: {_shown(pairs)}; "
            "take the copies out of the corpus, or let fewer rows calibrate"
        )
    lines = list(rows.remarks)
    if rows.left_out:
        lines.append(
            f"task: {len(rows.left_out)} rows are not scored, as their text calibrates: {_shown(rows.left_out)}"
        )
    return "; ".join(lines)


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return ", ".join(f"scored {name} = calibration {other}" for name, other in pairs[:_SHOWN]) + more
