"""Writes the report of a study: tables for programs (CSV, JSON) and for people (Markdown, HTML, PNG).

Every file appears whole or not at all: it is written beside its place and then moved there, so that nobody reads half
of a report while it is written again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.front.accuracy_price import price_rows
from search.front.front import ParetoFront, by_floor
from search.front.table import frame, searched_columns
from search.frontier.certificate import Certificate
from search.records.trial import TrialRecord
from search.reporting.formatting import score
from search.reporting.html import plain, render
from search.reporting.markdown import markdown, price_of_accuracy
from search.reporting.picture import draw
from search.reporting.study_info import StudyInfo
from search.reporting.tables import price_table, rows_of
from search.terminal.plain_text import inert_json, inert_tree

if TYPE_CHECKING:
    import pandas as pd


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
        "report.md": lambda: (
            markdown(study, rows, front, searched) + price_of_accuracy(rows, records, front, study.rate)
        ),
        "report.html": lambda: render(
            study, rows, front, searched, by_floor(records, front), price_table(rows, records, front, study.rate)
        ),
        "front.png": lambda: draw(rows, front, searched, study.title, study.rate, _asked(study)),
    }
    bought = pd.DataFrame([offer.flat for name in front.objectives for offer in price_rows(records, name)])
    if not bought.empty:
        writers = {**writers, "price.csv": lambda: csv(bought)}
    if study.certificate is not None:
        cells = pd.DataFrame(study.certificate.rows())
        writers = {**writers, "cells.csv": lambda: csv(cells)}
    folder.mkdir(parents=True, exist_ok=True)
    return [_replace(folder / name, content()) for name, content in writers.items()]


def _asked(study: StudyInfo) -> str:
    """Return the floors of several tasks for a title: ``boolq ≥ 0.4753, piqa ≥ 0.6402``; empty for one task."""
    return ", ".join(f"{name} ≥ {score(floor.floor)}" for name, floor in study.floors.items())


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV; texts that begin with ``= + - @`` get a quote, so that no spreadsheet runs them."""
    safe = table.astype(object).map(_inert)
    return safe.to_csv(index=False, lineterminator="\n")


def to_json(study: StudyInfo, records: Sequence[TrialRecord], front: ParetoFront) -> str:
    """Return the result for programs, as strict JSON in base units."""
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


def _point(record: TrialRecord, front: ParetoFront) -> dict[str, Any]:
    return {
        "trial": record.number,
        "params": record.params,
        "metrics": record.metrics,
        "tradeoff": front.tradeoffs.get(record.number),
        "notes": list(map(str, record.notes)),
    }


def _summed(certificate: Certificate) -> dict[str, Any]:
    """Return the certificate with counts in place of its cells, which have a table of their own."""
    found = asdict(replace(certificate, standings=()))
    before = {
        "partly_scored": "short",
        "timed_until_dominated": "hasty",
    }  # programs that read the file know these names
    return {before.get(name, name): value for name, value in found.items()} | {"cells": certificate.counts}


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
