"""Formats the result for the terminal: the baseline first, then the front, the recommended row with a star."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from objectives.metrics import METRICS
from search.front.front import ParetoFront
from search.front.table import frame, searched_columns
from search.frontier.certificate import counted
from search.records.trial import TrialRecord, Value
from search.reporting.formatting import Row
from search.reporting.tables import Column, columns, failures, rows_of

_WIDE = ("latency_p50", "weight_bytes", "ttft", "tpot", "perplexity")
NARROW = 100
"""Columns of a terminal below which the table has no frame and no column for the memory ratio."""


def front_table(
    records: Sequence[TrialRecord],
    front: ParetoFront,
    fixed: Mapping[str, Value] | None = None,
    *,
    rate: str = "tokens/s",
    title: str = "",
    width: int = NARROW,
) -> Table:
    """Return the result as a table for ``rich``.

    ``fixed``: values of variables not searched; ``rate``: the unit of throughput; ``width``: columns of the terminal.
    Every cell is a ``Text``, so that square brackets in names are shown and not read as markup.
    """
    rows = rows_of(frame(records, front, fixed))
    searched = tuple(searched_columns(records).values())
    shown = [column for column in columns(rows, front.objectives, searched, rate) if _fits(column, front)]
    by_number = {row["trial"]: row for row in rows}
    baselines = [row for row in rows if row["is_baseline"] and row["state"] == "complete"][:1]
    listed = [*(row["trial"] for row in baselines), *front.front]
    table = Table(title=Text(title) if title else None, caption=Text(_caption(rows, front)), header_style="bold")
    if width < NARROW:
        table.box, table.padding, table.pad_edge = None, (0, 1, 0, 0), False
        shown = [column for column in shown if column.key != "memory_ratio"]
    table.add_column(Text(""))
    table.add_column(Text("#" if width < NARROW else "Trial"), justify="right", overflow="fold")
    for column in shown:
        words = " ".join([column.title, *(column.cell(by_number[row]) for row in listed)]).split()
        longest = min(14, max(map(len, words))) if width < NARROW else None
        table.add_column(Text(column.title), justify="right", overflow="fold", width=longest)
    for row in baselines:
        _add(table, shown, row, "base", "dim")
    table.add_section()
    for number in front.front:
        recommended = number == front.recommended
        _add(table, shown, by_number[number], "★" if recommended else "", "bold green" if recommended else "")
    return table


def _fits(column: Column, front: ParetoFront) -> bool:
    return column.key not in _WIDE or column.key in {METRICS[name].column for name in front.objectives}


def _add(table: Table, shown: Sequence[Column], row: Row, mark: str, style: str) -> None:
    cells = [mark, str(row["trial"]), *(column.cell(row) for column in shown)]
    table.add_row(*(Text(cell) for cell in cells), style=style or None)


def _caption(rows: Sequence[Row], front: ParetoFront) -> str:
    failed = failures(rows)
    parts = [
        f"{counted(len(rows), 'trial', 'trials')}, {len(front.feasible)} feasible, {len(front.front)} on the front"
    ]
    if failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failed.items())
        parts.append(f"{sum(failed.values())} failed ({reasons})")
    return "; ".join(parts)
