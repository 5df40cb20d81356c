"""``paretune metrics [word]``: list the metrics that ``objectives=[...]`` may name, with unit and meaning.

With a word it lists only the metrics whose name or meaning contains the word.
"""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from objectives.metrics import METRICS, Metric
from search.errors import ConfigError
from search.terminal.console import console


def main(arguments: list[str]) -> int:
    """Print the metrics as a table. Raises ConfigError for more than one word, and for one that no metric contains."""
    if len(arguments) > 1:
        raise ConfigError(f"metrics: one word at most, got {' '.join(arguments)!r}")
    word = arguments[0].lower() if arguments else ""
    found = [each for each in METRICS.values() if word in each.name.lower() or word in each.meaning.lower()]
    if not found:
        raise ConfigError(f"metrics: none holds {word!r}; paretune metrics lists all {len(METRICS)}")
    console().print(table(found))
    return 0


def table(metrics: list[Metric]) -> Table:
    """Return the metrics as a table for ``rich``, one a row."""
    shown = Table(header_style="bold")
    for name in ("Metric", "Unit", "Better", "Meaning"):
        shown.add_column(name, overflow="fold", no_wrap=name == "Metric")
    for each in metrics:
        better = "higher" if each.higher_is_better else "lower"
        shown.add_row(*(Text(text) for text in (each.name, each.unit or "–", better, each.meaning)))
    return shown
