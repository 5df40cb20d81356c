"""``paretune metrics [word]``: list every metric with its unit and meaning.

The first table lists the metrics that ``objectives=[...]`` may name. The second lists the conditions of a measurement,
which are stored with a trial and are not objectives. With a word, only those are listed whose name or meaning contains
the word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from objectives.metrics import CONDITIONS, METRICS, Metric
from search.errors import ConfigError
from search.terminal.console import console


def main(arguments: list[str]) -> int:
    """Print the metrics as tables. Raises ConfigError for more than one word, and for one that no metric contains."""
    if len(arguments) > 1:
        raise ConfigError(f"metrics: one word at most, got {' '.join(arguments)!r}")
    word = arguments[0].lower() if arguments else ""
    metrics, conditions = _containing(word, METRICS), _containing(word, CONDITIONS)
    if not metrics and not conditions:
        count = len(METRICS) + len(CONDITIONS)
        raise ConfigError(f"metrics: no name or meaning contains {word!r}; paretune metrics lists all {count}")
    if metrics:
        console().print(table(metrics))
    if conditions:
        console().print(table(conditions, are_objectives=False))
    return 0


def table(metrics: Sequence[Metric], are_objectives: bool = True) -> Table:
    """Return the metrics as a table for ``rich``, one a row.

    Conditions of the measurement (``are_objectives`` false) are marked as such and have no better direction.
    """
    if are_objectives:
        shown, directed = Table(header_style="bold"), ["Better"]
    else:
        shown, directed = Table(header_style="bold", title="Conditions of the measurement (not an objective)"), []
    for name in ("Metric", "Unit", *directed, "Meaning"):
        shown.add_column(name, overflow="fold", no_wrap=name == "Metric")
    for each in metrics:
        better = ["higher" if each.higher_is_better else "lower"] if are_objectives else []
        shown.add_row(*(Text(text) for text in (each.name, each.unit or "–", *better, each.meaning)))
    return shown


def _containing(word: str, metrics: Mapping[str, Metric]) -> list[Metric]:
    """Return the metrics whose name or meaning contains ``word``."""
    return [each for each in metrics.values() if word in each.name.lower() or word in each.meaning.lower()]
