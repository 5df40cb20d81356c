"""Writes the front as Markdown, to paste into an issue or a README."""

from __future__ import annotations

from collections.abc import Sequence

from search.front.front import ParetoFront
from search.records.trial import TrialRecord
from search.reporting.formatting import Row
from search.reporting.html import floor_text
from search.reporting.sentences import result
from search.reporting.study_info import StudyInfo
from search.reporting.tables import columns, confirmation, failures, ledger, price_table


def markdown(study: StudyInfo, rows: Sequence[Row], front: ParetoFront, searched: Sequence[str]) -> str:
    """Return the report as Markdown: the result, the front as a table, the certificate, gains and failures."""
    shown = columns(rows, front.objectives, searched, study.rate)
    by_number = {row["trial"]: row for row in rows}
    baseline = next((row for row in rows if row["is_baseline"] and row["state"] == "complete"), None)
    body = [("baseline", baseline)] if baseline else []
    body += [("★" if n == front.recommended else "", by_number[n]) for n in front.front]
    lines = [f"# {_cell(study.title)}", "", *_paragraphs(result(study, rows, front, searched)), ""]
    lines += [f"{_cell(study.model)}, {_cell(study.task)}, {_cell(study.device)}; {len(rows)} trials; "
              f"accuracy floor {floor_text(study)}.", ""]  # fmt: skip
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
    """Return the first text as a bold paragraph, the others as a list."""
    first, *more = texts
    return [f"**{_cell(first)}**", *([""] if more else []), *(f"- {_cell(text)}" for text in more)]


def _confirmed(study: StudyInfo, rows: Sequence[Row]) -> list[str]:
    """Return how sure the front is, and why trials were dropped from it."""
    lines = [_cell(text) for text in confirmation(study, rows)]
    return [*lines, *(f"- {_cell(f'trial {number}: {why}')}" for number, why in study.dropped.items())]


def _ledger(rows: Sequence[Row], front: ParetoFront) -> list[str]:
    """Return the section on what compression promised and delivered, of the front's members."""
    headings, body = ledger([row for row in rows if row["trial"] in front.front])
    if not body:
        return []
    return [
        "", "## Promised and delivered", "",
        "All ratios are over the dense model at the same batch size. The promised speed is the highest that bytes and "
        "operations allow on this device.", "",
        *_line(headings), *_line([":--", *("--:" for _ in headings[2:]), ":--"], escape=False),
        *(line for row in body for line in _line(row)),
    ]  # fmt: skip


def price_of_accuracy(rows: Sequence[Row], records: Sequence[TrialRecord], front: ParetoFront, rate: str) -> str:
    """Return the section on the best first objective at each accuracy; empty where there is no choice."""
    headings, body = price_table(rows, records, front, rate)
    if not body:
        return ""
    title = [
        "",
        "## The price of accuracy",
        "",
        "The best value of the first objective among the trials with at least this accuracy."
        if headings[0] == "Accuracy"
        else "The best value of the first objective among the trials that keep at least this share in every task.",
        "",
    ]
    lines = [*title, *_line(headings), *_line([*("--:" for _ in headings[1:]), ":--"], escape=False)]
    return "\n".join([*lines, *(line for row in body for line in _line(row))]) + "\n"


def _line(cells: Sequence[str], escape: bool = True) -> list[str]:
    return ["| " + " | ".join(_cell(cell) if escape else cell for cell in cells) + " |"]


def _cell(text: str) -> str:
    for character in "\\|<>`*_[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
