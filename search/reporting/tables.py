"""Tables for people: one list of columns serves the terminal, Markdown and HTML, so that the three never disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectives.metrics import METRICS
from search.front.accuracy_price import price_rows
from search.front.front import ParetoFront
from search.frontier.certificate import counted, summary_lines
from search.records.trial import TrialRecord
from search.reporting.bands import band_columns
from search.reporting.formatting import (
    DECIMALS,
    HEADINGS,
    KV_BITS,
    Row,
    UnitPrefix,
    heading,
    label,
    number,
    percent,
    prefix_of,
    ratio,
    score,
    show,
)

if TYPE_CHECKING:
    import pandas as pd

    from search.reporting.study_info import StudyInfo

_MEANINGS = {metric.column: metric.meaning for metric in METRICS.values()}
_HALF_WIDTH = 1.96
"""Standard errors in half of a 95 % interval."""
_VERSUS = {"compression_speedup": "vs dense"}


@dataclass(frozen=True)
class Column:
    """A column of a table for people.

    ``key`` names the column of the frame, ``error`` that of its relative error, ``stderr`` that of its standard error,
    from which the cell shows half of the 95 % interval.
    """

    key: str
    heading: str
    scale: UnitPrefix
    decimals: int | None = None
    error: str = ""
    stderr: str = ""

    @property
    def unit(self) -> str:
        """Return the text under the heading: the unit, or for a ratio what it is relative to."""
        return _VERSUS.get(self.key, "vs baseline") if self.scale.unit == "×" else self.scale.unit

    @property
    def meaning(self) -> str:
        """Return what the metric of this column means; empty for a setting."""
        return _MEANINGS.get(self.key, "")

    @property
    def title(self) -> str:
        """Return the heading with the unit."""
        return f"{self.heading} [{self.unit}]" if self.scale.unit not in ("", "×") else self.heading

    def cell(self, row: Row) -> str:
        """Format the cell of a row; an en dash where the row has no value."""
        value = row.get(self.key)
        if value is None:
            return "–"
        if isinstance(value, bool | str) or self.key in ("bits", "batch_size", KV_BITS):
            return f"{value:g}" if isinstance(value, float) else str(value)
        scaled = value / self.scale.size
        text = number(scaled) if self.decimals is None else f"{scaled:.{self.decimals}f}"
        spread = row.get(self.stderr)
        if spread:
            return f"{text} ±{_HALF_WIDTH * spread:.{self.decimals}f}"
        error = row.get(self.error) if not row.get("is_baseline") else None
        return text + ("×" if self.scale.unit == "×" else "") + (f" ±{error:.1%}" if error else "")


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame, with None for everything that is missing."""
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")  # type: ignore[assignment]
    return rows


def columns(rows: Sequence[Row], objectives: Sequence[str], searched: Sequence[str], rate: str) -> list[Column]:
    """Return the columns: settings first, then every objective and metric of interest that occurs in ``rows``."""
    settings = [
        Column("pruning_ratio", "Pruned", UnitPrefix(0.01, "%"), 1),
        Column("bits", "Bits", UnitPrefix(1.0, "")),
        Column("batch_size", "Batch", UnitPrefix(1.0, "")),
        *(Column(key, key.replace("_", " "), UnitPrefix(1.0, "")) for key in searched),
    ]
    metrics = []
    for name in dict.fromkeys((*objectives, *HEADINGS)):
        key = METRICS[name].column
        values = [abs(row[key]) for row in rows if row.get(key) is not None]
        if values:
            error = f"{key}_error" if name.endswith("speedup") else ""
            metrics.append(Column(key, heading(name), prefix_of(name, max(values), rate), DECIMALS.get(name), error))
    last = ("accuracy", "perplexity", "speedup", "memory_ratio", "compression_speedup")
    ordered = sorted(metrics, key=lambda column: column.key in last)
    place = next((index for index, column in enumerate(ordered) if column.key == "accuracy"), len(ordered))
    return [*settings, *ordered[:place], *_of_tasks(rows), *ordered[place:]]


def _of_tasks(rows: Sequence[Row]) -> list[Column]:
    """Return the accuracy of each of several tasks, headed by its floor; then that of bands, where there are some."""
    floors = {key.removeprefix("floor_"): row[key] for row in rows for key in row if key.startswith("floor_")}
    found = []
    for task in floors:
        floor = max((row[f"floor_{task}"] or 0.0 for row in rows), default=0.0)
        title = f"{task} ≥ {score(floor)}" if floor else task
        found.append(Column(f"accuracy_{task}", title, UnitPrefix(1.0, ""), 4, stderr=f"accuracy_stderr_{task}"))
    bands = [each.value for each in band_columns(rows)]
    return [*found, *(Column(key, heading(key), UnitPrefix(1.0, ""), 2) for key in bands)]


def failures(rows: Sequence[Row]) -> dict[str, int]:
    """Count the failed trials by reason, most frequent first."""
    return dict(Counter(str(row["reason"] or "error") for row in rows if row["state"] == "failed").most_common())


def confirmation(study: StudyInfo, rows: Sequence[Row]) -> list[str]:
    """Return, in words, the advice, how sure the front is, how many members were confirmed and how many dropped."""
    sure = [] if study.certificate is None else summary_lines(study.certificate)
    return [*study.advice, *sure, *_confirmed(study, rows)]


def _confirmed(study: StudyInfo, rows: Sequence[Row]) -> list[str]:
    members = [row for row in rows if row["on_front"] and not row["is_baseline"]]
    besides = " besides the baseline" if any(row["on_front"] and row["is_baseline"] for row in rows) else ""
    count, busy = (sum(bool(row.get(key)) for row in members) for key in ("confirmed", "contended"))
    found = [f"Some trials were not timed again: {study.unconfirmed}."] if study.unconfirmed and members else []
    if busy:
        found.append(
            f"Contention: {_share(busy, len(members), besides)} timed on a busy machine, so the speed is less certain."
        )
    if not count:
        unsure = members and any(row.get("speedup_error") for row in members)
        return [*found, "Not confirmed: each speed comes from a single trial."] if unsure else found
    found.append(f"Confirmed: {_share(count, len(members), besides)} timed again, together with the baseline.")
    if study.dropped:
        found.append(f"After that, {counted(len(study.dropped), 'trial', 'trials')} left the front:")
    return found


def _share(count: int, members: int, besides: str) -> str:
    """Say how many of the front's members were treated alike: ``2 of the front's 3 members were``."""
    if members == 1:
        return f"the front's only member{besides} was"
    if count == members:
        return f"all {members} members of the front{besides} were"
    return f"{count} of the front's {members} members{besides} {'was' if count == 1 else 'were'}"


_LEDGER = (
    ("Weights", "weight_ratio"), ("Operations", "flops_ratio"), ("Speed promised", "promised_speedup"),
    ("Speed delivered", "compression_speedup"), ("Memory", "compression_memory_ratio"),
)  # fmt: skip


def ledger(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of what compression promised and delivered; without trials that compress nothing."""
    limits = [
        (f"{phase.capitalize()}, share of limit", f"roofline_{phase}")
        for phase in ("encode", "prefill", "decode")
        if any(row.get(f"roofline_{phase}") is not None for row in rows)
    ]
    body = [
        [
            f"{row['trial']}: {label(row)}",
            *("–" if row.get(key) is None else _with_interval(row, key) for _, key in _LEDGER),
            *("–" if row.get(key) is None else f"{row[key]:.0%}" for _, key in limits),
            row.get("no_realised_gain") or "–",
        ]
        for row in rows
        if row.get("realised_gain")
    ]
    return ["Trial", *(name for name, _ in (*_LEDGER, *limits)), "Not gained"], body


def _with_interval(row: Row, key: str) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return (
        ratio(row[key])
        if low is None or high is None or low == high
        else (f"{ratio(row[key])} ({ratio(low)} to {ratio(high)})")
    )


def price_table(
    rows: Sequence[Row], records: Sequence[TrialRecord], front: ParetoFront, rate: str
) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the best first objective at each accuracy; no cells where there is no choice."""
    name = front.objectives[0]
    by_number = {row["trial"]: row for row in rows}
    found = price_rows(records, name)
    tasks = list(dict.fromkeys(task for offer in found for task in offer.tasks))
    body = [
        [
            *([score(offer.tasks[task]) for task in tasks] or [score(offer.accuracy)]),
            percent(offer.share),
            show(name, offer.value, rate),
            ratio(offer.gain),
            f"{offer.trial}: {label(by_number[offer.trial])}",
        ]
        for offer in found
    ]
    first = [*tasks, "least of the baseline's"] if tasks else ["Accuracy", "of the baseline's"]
    return [*first, heading(name), "times as good", "Trial"], body if len(body) > 1 else []


def is_unscored(row: Row) -> bool:
    """Return whether a trial has no accuracy at all, of no task."""
    tasks = (key for key in row if key.startswith("floor_"))
    return row["accuracy"] is None and all(row.get(f"accuracy_{key.removeprefix('floor_')}") is None for key in tasks)
