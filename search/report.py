"""Writes what a study found: tables for programs (CSV, JSON) and for people (Markdown, HTML, PNG).

Every file appears whole or not at all: it is written beside its place and then moved there, so that a report
renewed while somebody reads it is never half a report.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.certificate import Certificate
from search.figure import draw
from search.formatting import Row, columns, confirmation, failures, ledger, price, rows_of, score
from search.front import ParetoFront, by_floor, frame, searched_columns
from search.headline import Headline
from search.page import floor_rule, plain, render
from search.plain_text import inert_json, inert_tree
from search.price import offers
from search.records import TrialRecord, Value
from search.sentences import result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyInfo:
    """What a report says about the study besides its trials.

    ``floor``: absolute accuracy floor; ``epsilon`` and ``relative`` say how it was asked for. ``baseline``:
    its trial number. ``n_trials``: trials asked for. ``space``: values searched, by dotted path; ``fixed``:
    values not searched. ``settings``: the whole config, for the details. ``hardware``: name -> text.
    ``search_cost``: what the search took and was spared, such as ``{"cells timed": "12 of 18"}``.
    ``dropped``: trials that left the front when it was confirmed, and why; ``unconfirmed``: why it could not be.
    ``rate``: the unit of throughput, ``tokens/s`` or ``samples/s``. ``certificate``: how sure the front is, if known.
    ``advice``: what to do where nothing keeps the floor. ``gains``: what the recommended candidate gains by what.
    """

    name: str
    title: str
    objectives: tuple[str, ...]
    floor: float
    epsilon: float
    relative: bool
    baseline: int | None
    model: str
    task: str
    device: str
    stop_reason: str
    n_trials: int
    space: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    fixed: Mapping[str, Value] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    hardware: Mapping[str, str] = field(default_factory=dict)
    search_cost: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[int, str] = field(default_factory=dict)
    unconfirmed: str = ""
    rate: str = "tokens/s"
    certificate: Certificate | None = None
    advice: tuple[str, ...] = ()
    gains: Headline | None = None


def write_report(folder: Path, study: StudyInfo, records: Sequence[TrialRecord], front: ParetoFront) -> list[Path]:
    """Write all files into ``folder``, replacing older ones, and return their paths."""
    import pandas as pd

    given, measured = study, records  # JSON has escapes of its own
    study, records = inert_tree(study), inert_tree(list(records))
    table = frame(records, front, study.fixed)
    rows = rows_of(table)
    searched = tuple(searched_columns(records).values())
    members = table.set_index("trial", drop=False).loc[list(front.front)]
    writers: Mapping[str, Callable[[], str | bytes]] = {
        "pareto.csv": lambda: csv(members),
        "trials.csv": lambda: csv(table),
        "pareto.json": lambda: to_json(given, measured, front),
        "report.md": lambda: markdown(study, rows, front, searched) + _price(rows, records, front, study.rate),
        "report.html": lambda: render(
            study, rows, front, searched, by_floor(records, front), price(rows, records, front, study.rate)
        ),
        "front.png": lambda: draw(rows, front, searched, study.title, study.rate),
    }
    bought = pd.DataFrame([asdict(offer) for name in front.objectives for offer in offers(records, name)])
    if not bought.empty:
        writers = {**writers, "price.csv": lambda: csv(bought)}
    if study.certificate is not None:
        cells = pd.DataFrame(study.certificate.rows())
        writers = {**writers, "cells.csv": lambda: csv(cells)}
    folder.mkdir(parents=True, exist_ok=True)
    return [_replace(folder / name, content()) for name, content in writers.items()]


def csv(table: pd.DataFrame) -> str:
    """CSV whose text cells no spreadsheet runs as a formula: they get a quote before ``= + - @``."""
    safe = table.astype(object).map(_inert)
    return safe.to_csv(index=False, lineterminator="\n")


def to_json(study: StudyInfo, records: Sequence[TrialRecord], front: ParetoFront) -> str:
    """The result for programs: base units, strict JSON."""
    by_number = {record.number: record for record in records}
    sure = study.certificate
    study_facts = asdict(replace(study, certificate=None, gains=None))
    del study_facts["gains"]
    found = {
        "study": {**study_facts, "certificate": None if sure is None else _summed(sure)},
        "headline": None if study.gains is None else asdict(study.gains),
        "objectives": front.objectives,
        "floor": front.floor,
        "front": [_point(by_number[number], front) for number in front.front],
        "recommended": front.recommended,
        "passed_over": front.passed_over,
        "knee": front.knee,
        "hypervolume": front.hypervolume,
        "feasible": sorted(front.feasible),
        "nearest_miss": front.nearest_miss,
        "gap": front.gap,
        "trials": len(records),
    }
    return inert_json(json.dumps(plain(found), indent=2, allow_nan=False, ensure_ascii=False)) + "\n"


def markdown(study: StudyInfo, rows: Sequence[Row], front: ParetoFront, searched: Sequence[str]) -> str:
    """The front as a table to paste into an issue or a README."""
    shown = columns(rows, front.objectives, searched, study.rate)
    by_number = {row["trial"]: row for row in rows}
    baseline = next((row for row in rows if row["is_baseline"] and row["state"] == "complete"), None)
    body = [("baseline", baseline)] if baseline else []
    body += [("★" if n == front.recommended else "", by_number[n]) for n in front.front]
    lines = [f"# {_cell(study.title)}", "", *_paragraphs(result(study, rows, front, searched)), ""]
    lines += [f"{_cell(study.model)}, {_cell(study.task)}, {_cell(study.device)}; {len(rows)} trials; "
              f"accuracy floor {score(front.floor)} ({floor_rule(study)}).", ""]  # fmt: skip
    lines += _line(["", "Trial", *(column.title for column in shown)])
    lines += _line([":--", "--:", *("--:" for _ in shown)], escape=False)
    for mark, row in body:
        lines += _line([mark, str(row["trial"]), *(column.cell(row) for column in shown)])
    lines += ["", *_confirmed(study, rows)]
    lines += _ledger(rows, front)
    failed = failures(rows)
    if failed:
        lines += ["", "## Failed trials", "", *_line(["Reason", "Trials"]), "| :-- | --: |"]
        lines += [line for reason, count in failed.items() for line in _line([reason, str(count)])]
    return "\n".join(lines) + "\n"


def _paragraphs(texts: Sequence[str]) -> list[str]:
    """The first by itself, the others as a list."""
    first, *more = texts
    return [f"**{_cell(first)}**", *([""] if more else []), *(f"- {_cell(text)}" for text in more)]


def _confirmed(study: StudyInfo, rows: Sequence[Row]) -> list[str]:
    """How far the front can be relied on."""
    lines = [_cell(text) for text in confirmation(study, rows)]
    return [*lines, *(f"- {_cell(f'trial {number}: {why}')}" for number, why in study.dropped.items())]


def _ledger(rows: Sequence[Row], front: ParetoFront) -> list[str]:
    """Promised and delivered, of the members of the front."""
    headings, body = ledger([row for row in rows if row["trial"] in front.front])
    if not body:
        return []
    return [
        "", "## Promised and delivered", "",
        "Against the dense model at the same batch size; promised is what bytes and operations allow.", "",
        *_line(headings), *_line([":--", *("--:" for _ in headings[2:]), ":--"], escape=False),
        *(line for row in body for line in _line(row)),
    ]  # fmt: skip


def _point(record: TrialRecord, front: ParetoFront) -> dict[str, Any]:
    return {
        "trial": record.number,
        "params": record.params,
        "metrics": record.metrics,
        "tradeoff": front.tradeoffs.get(record.number),
        "notes": list(map(str, record.notes)),
    }


def _price(rows: Sequence[Row], records: Sequence[TrialRecord], front: ParetoFront, rate: str) -> str:
    headings, body = price(rows, records, front, rate)
    if not body:
        return ""
    title = ["", "## The price of accuracy", "", "The best that each accuracy leaves, in the first objective.", ""]
    lines = [*title, *_line(headings), *_line(["--:", "--:", "--:", "--:", ":--"], escape=False)]
    return "\n".join([*lines, *(line for row in body for line in _line(row))]) + "\n"


def _summed(certificate: Certificate) -> dict[str, Any]:
    """Without the cells, which have a table of their own."""
    return {**asdict(replace(certificate, standings=())), "cells": certificate.counts}


def _line(cells: Sequence[str], escape: bool = True) -> list[str]:
    return ["| " + " | ".join(_cell(cell) if escape else cell for cell in cells) + " |"]


def _cell(text: str) -> str:
    for character in "\\|<>`*_[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@\t\r")) else value


def _replace(path: Path, content: str | bytes) -> Path:
    data = content.encode(errors="replace") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
