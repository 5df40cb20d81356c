"""``paretune compare study=A with=B [home=mlruns] [with_home=...] [across_hardware=true] [json=true]``.

Compares two stored studies of the same weights and the same task: the cells (combinations of searched values) that
both measured, and what each Pareto front lacks of the other. Measures nothing.

  with_home=FOLDER        where study B lies, if it is not in ``home``
  across_hardware=true    compare studies of different hardware too, which is refused otherwise
  json=true               print JSON in base units instead of a table

``accuracy_floor``, ``objectives`` and ``tradeoff`` may be given as for ``report``; they then hold for both studies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from search.commands.stored_study import StoredStudy, load, pairs
from search.config.definition import DEFINITION
from search.errors import ConfigError
from search.front.comparison import Cell, Comparison, Side, compare
from search.front.table import BITS, MAIN, RATIO, batch_of
from search.records.trial import Value
from search.reporting.formatting import heading, label, number, percent
from search.terminal.console import console
from search.terminal.plain_text import inert_tree

OPTIONS = ("with", "with_home", "across_hardware", "json")


def main(arguments: list[str]) -> int:
    """Print the comparison as a table, or as strict JSON in base units, in which infinity is null."""
    given = pairs(arguments)
    options = {name: given.pop(name) for name in OPTIONS if name in given}
    across, as_json = (_switch(options, name) for name in ("across_hardware", "json"))
    first, second = _load(given, options)
    _require_comparable(first, second)
    neutral = {**second.config.space.neutral(), **first.config.space.neutral()}
    found = compare(_side(first, neutral), _side(second, neutral))
    if found.hardware and not across:
        raise ConfigError(
            f"across_hardware: {found.studies[0]} and {found.studies[1]} ran on unlike hardware "
            f"({_against(found.hardware)}); across_hardware=true compares all the same"
        )
    settings = _settings(first, second)
    if as_json:
        print(json.dumps(_plain({**asdict(found), "settings": settings}), indent=2, allow_nan=False))
    else:
        console().print(table(inert_tree(found), settings))
    return 0


def table(found: Comparison, settings: list[str]) -> Table:
    """Return the comparison as a table for ``rich``, one quantity a line; ``settings``: definition keys that differ."""
    a, b = found.studies
    shown = Table(
        title=Text(f"A {a} · B {b}"), caption=Text(_caption(found)), header_style="bold", caption_justify="left"
    )
    shown.add_column(Text("A and B"))
    shown.add_column(Text("Result"))
    for name, text in _lines(found, settings):
        shown.add_row(Text(name), Text(text))
    return shown


def _lines(found: Comparison, settings: list[str]) -> Iterator[tuple[str, str]]:
    cells, fronts = found.cells, found.fronts
    yield "Cells in both", f"{len(cells.common)} (A has {cells.measured[0]}, B {cells.measured[1]})"
    for name, ratios in cells.ratios.items():
        yield f"{heading(name)}, B/A", f"{number(ratios.median)}× median, {number(ratios.worst)}× worst"
    order = "–" if cells.order is None else f"{cells.order:.2f} Kendall's tau-b"
    yield f"Same order of {heading(found.objectives[0]).lower()}", order
    for side, name in enumerate("AB"):
        only = "; ".join(_label(cell) for cell in fronts.only[side]) or "–"
        yield f"Only on {name}'s front of {fronts.sizes[side]}", only
    yield "B covers A's front within", _within(fronts.coverage[0])
    yield "A covers B's front within", _within(fronts.coverage[1])
    if fronts.gains is not None:
        yield "Both, by gains over each baseline", f"{_within(fronts.gains[0])} and {_within(fronts.gains[1])}"
    if settings:
        yield "Other settings in B", ", ".join(settings)


def _caption(found: Comparison) -> str:
    if not found.hardware:
        return ""
    return f"across unlike hardware ({_against(found.hardware)}): ratios compare machines too"


def _label(cell: Cell) -> str:
    main = {"pruning_ratio": cell.get(RATIO), "bits": cell.get(BITS), "batch_size": batch_of(cell)}
    others = [path for path in cell if path not in MAIN]
    return label({**cell, **main, "trial": "–"}, others)


def _within(epsilon: float) -> str:
    return percent(epsilon) if math.isfinite(epsilon) else "no factor: its front is empty"


def _against(unlike: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} {first} against {second}" for name, (first, second) in unlike.items())


def _switch(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "false")
    if text not in ("true", "false"):
        raise ConfigError(f"{name}: true or false, got {text!r}")
    return text == "true"


def _load(given: Mapping[str, str], options: Mapping[str, str]) -> tuple[StoredStudy, StoredStudy]:
    """Load both studies. Name and home of the second come from ``options``, all other keys in ``given`` hold for both.

    Raises ConfigError.
    """
    if not options.get("with"):
        raise ConfigError("with: the name of the study to compare with, got none")
    first = load(_words(given))
    other = {**given, "study": options["with"]}
    if "with_home" in options:
        other = {**other, "home": options["with_home"]}
        other.pop("storage", None)
    try:
        return first, load(_words(other))
    except ConfigError as error:
        raise ConfigError(f"with: {error}") from error


def _words(given: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in given.items()]


def _require_comparable(first: StoredStudy, second: StoredStudy) -> None:
    """Raise ConfigError for studies of different weights or tasks: their figures cannot be compared."""
    weights = [study.machine.get("model_sha256", "-") for study in (first, second)]
    if weights[0] != weights[1]:
        names = f"{first.config.model.path} ({weights[0][:12]}) against {second.config.model.path} ({weights[1][:12]})"
        raise ConfigError(f"model.path: only studies of the same weights compare, got {names}")
    if first.config.task != second.config.task:
        different = dict(_unequal(first.config.resolved["task"], second.config.resolved["task"], "task"))
        raise ConfigError(f"task: only studies of the same task compare, got {_against(different)}")


def _unequal(first: Any, second: Any, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the settings that differ, by dotted path, each with both values."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in {**first, **second}:
            yield from _unequal(first.get(name, "-"), second.get(name, "-"), f"{path}.{name}")
    elif first != second:
        yield path, (str(first), str(second))


def _settings(first: StoredStudy, second: StoredStudy) -> list[str]:
    one, other = first.config.definition, second.config.definition
    return [key for key in DEFINITION if one.get(key) != other.get(key)]


def _side(study: StoredStudy, neutral: Mapping[str, Value]) -> Side:
    # A method without a setting does what its neutral value does: no recovery is recovery for 0 seconds.
    fixed = {**neutral, **study.config.space.fixed()}
    return Side(study.config.name, study.records, study.front, fixed, study.machine)


def _plain(value: Any) -> Any:
    """Replace infinity and NaN in ``value``, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
