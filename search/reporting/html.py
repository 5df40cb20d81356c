"""Renders the report as one HTML file that works offline and can be sent by mail.

Names of models and studies are other people's text. Jinja escapes them in the markup, ``embedded`` escapes them in the
data, and the script writes them with ``textContent``. The content policy allows no script but ours (by its hash), no
network and no form: a name that is markup stays a name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from objectives.metrics import METRICS
from objectives.types import Speed
from search.front.front import ParetoFront, Step
from search.reporting.bands import band_columns
from search.reporting.formatting import Row, heading, label, percent, prefix_of, ratio, score
from search.reporting.headline import Headline
from search.reporting.sentences import gain_text, result
from search.reporting.study_info import MEAN, AskedFloor
from search.reporting.tables import Column, columns, confirmation, failures, is_unscored, ledger

if TYPE_CHECKING:
    from jinja2 import Environment

    from search.reporting.study_info import StudyInfo

_TEMPLATES = files("search.reporting") / "templates"


def render(
    study: StudyInfo,
    rows: Sequence[Row],
    front: ParetoFront,
    searched: Sequence[str],
    steps: Sequence[Step] = (),
    price_table: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ()),
) -> str:
    """Return the page.

    ``rows``, ``searched``: those of :func:`search.front.table.frame`, and its columns of further variables; ``steps``:
    those of :func:`search.front.front.by_floor`; ``price_table``: that of :func:`search.reporting.tables.price_table`.
    """
    shown = columns(rows, front.objectives, searched, study.rate)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            front=front,
            verdict=result(study, rows, front, searched),
            tiles=_tiles(study, rows, front),
            headings=[("Trial", ""), ("Status", ""), *((c.heading, c.unit) for c in shown), ("Remark", "")],
            meanings=[(column.title, column.meaning) for column in shown if column.meaning],
            rows=[_table_row(row, shown) for row in rows],
            compared=[_table_row(row, shown) for row in _compared(rows, front)],
            failures=failures(rows),
            confirmation=confirmation(study, rows),
            ledger=ledger([row for row in rows if row["trial"] in front.front]),
            price_table=price_table,
            floors=floor_text(study),
            fixed=bool(study.floors or study.limits or band_columns(rows)),
            settings=json.dumps(plain(study.settings), indent=2, ensure_ascii=False),
            data=embedded({**_drawing(study, rows, front, searched), **_cuts(rows, front, steps)}),
            style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=_content_hash(script),
        )
    )


def _content_hash(script: str) -> str:
    """Return the hash by which the page's security policy allows ``script``."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def embedded(data: object) -> str:
    """Return ``data`` as JSON for a ``script`` element, which it can neither close nor open a comment in."""
    text = json.dumps(plain(data), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def plain(value: object) -> Any:
    """Return ``value`` as strict JSON has it: None for NaN and infinity, text for every unknown type."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def floor_text(study: StudyInfo) -> str:
    """Return the floor and how it was asked for: ``0.9506 (99 % of the baseline)``; those of several tasks in a row."""
    floors = study.floors or {"": AskedFloor(study.floor, study.epsilon)}
    return ", ".join(f"{name} {_floor_text(study, floor)}".strip() for name, floor in floors.items())


def _floor_text(study: StudyInfo, floor: AskedFloor) -> str:
    rule = f"{percent(floor.epsilon)} of the baseline" if study.relative else "absolute"
    return f"{score(floor.floor)} ({rule})"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("search.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _compared(rows: Sequence[Row], front: ParetoFront) -> list[Row]:
    """Return the rows of the baseline and then of the front's other members."""
    by_number = {row["trial"]: row for row in rows}
    baseline = [row for row in rows if row["is_baseline"] and row["state"] == "complete"][:1]
    return baseline + [by_number[trial] for trial in front.front if [by_number[trial]] != baseline]


def _tiles(study: StudyInfo, rows: Sequence[Row], front: ParetoFront) -> list[tuple[str, str, str]]:
    """Return the facts under the headline: name, value, remark."""
    tiles = [*_gain_tiles(study.gains), *_accuracy_tile(study, rows, front)]
    tiles.append(("Pareto front", str(len(front.front)), f"of {len(front.feasible)} feasible, {len(rows)} trials"))
    return tiles + [(name, value, "") for name, value in study.search_cost.items()]


def _gain_tiles(found: Headline | None) -> list[tuple[str, str, str]]:
    if found is None or found.is_baseline:
        return []
    at = "the dense model" + ("" if found.batch_size is None else f" at batch {found.batch_size}")
    like = found.is_like_the_baseline
    tiles = [
        ("compression", found.compression, f"the speed of {at}"),
        ("runtime", found.runtime, "the speed of torch"),
        ("batch size", None if like else found.batching, f"{found.batch_size} instead of {found.baseline_batch_size}"),
        ("together", None if like else found.together, "the speed of the baseline"),
    ]
    shown = [(name, gain_text(gain), remark) for name, gain, remark in tiles if gain is not None]
    return shown + ([] if found.memory is None else [("peak memory", ratio(found.memory), "of the baseline's")])


def _accuracy_tile(study: StudyInfo, rows: Sequence[Row], front: ParetoFront) -> list[tuple[str, str, str]]:
    best = next((row for row in rows if row["recommended"]), None)
    if best is None:
        return []
    if study.floors:
        values = {name: best["accuracy"] if name == MEAN else best[f"accuracy_{name}"] for name in study.floors}
        return [
            (f"accuracy of {name}", score(values[name]), f"floor {_floor_text(study, floor)}")
            for name, floor in study.floors.items()
        ]
    return [
        ("accuracy", score(best["accuracy"]), f"floor {_floor_text(study, AskedFloor(front.floor, study.epsilon))}")
    ]


def _cuts(rows: Sequence[Row], front: ParetoFront, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the front at the study's own floor and at any other: the page looks up what the command line finds."""
    by_number = {row["trial"]: row for row in rows}
    own = [number for number in sorted(front.feasible) if by_number[number]["cached_from"] is None]
    return {
        "own": {"feasible": own, "count": len(front.feasible), "front": front.front, "best": front.recommended},
        "steps": [{"floor": step.floor, "front": step.front, "best": step.recommended} for step in steps],
    }


def _table_row(row: Row, shown: Sequence[Column]) -> dict[str, Any]:
    return {
        "trial": row["trial"],
        "cells": [(column.cell(row), "" if row[column.key] is None else row[column.key]) for column in shown],
        "status": _status(row),
        "remark": "; ".join(text for text in (row["message"], row["no_realised_gain"], row["notes"]) if text),
        "failed": row["state"] == "failed",
        "baseline": row["is_baseline"],
    }


def _status(row: Row) -> str:
    if row["state"] == "failed":
        return f"failed: {str(row['reason'] or 'error').replace('_', ' ')}"
    if row["cached_from"] is not None:
        return f"repeat of {row['cached_from']}"
    if is_unscored(row):
        return "dominated, not scored"
    standing = "front" if row["on_front"] else "feasible" if row["feasible"] else "below the floor"
    return "recommended" if row["recommended"] else standing


def _drawing(study: StudyInfo, rows: Sequence[Row], front: ParetoFront, searched: Sequence[str]) -> dict[str, Any]:
    """Return the data by which the script draws the picture and shows the front at another floor."""
    axes = list(dict.fromkeys((*front.objectives, "accuracy")))
    keys = [METRICS[name].column for name in axes]
    drawn = [row for row in rows if row["cached_from"] is None and all(row.get(key) is not None for key in keys)]
    shown = columns(rows, front.objectives, searched, study.rate)
    baseline = next((row for row in drawn if row["is_baseline"]), None)
    return {
        "floor": front.floor,
        "baselineAccuracy": baseline["accuracy"] if baseline else None,
        "objectives": len(front.objectives),
        "axes": [_axis(name, [row[METRICS[name].column] for row in drawn], study.rate) for name in axes],
        "repeats": [row["accuracy"] for row in rows if row["cached_from"] is not None and row["accuracy"] is not None],
        "trials": [
            {
                "trial": row["trial"],
                "label": label(row, searched),
                "values": [row[key] for key in keys],
                "accuracy": row["accuracy"],
                "slower": front.speeds.get(row["trial"]) is Speed.SLOWER,
                "baseline": row["is_baseline"],
                "details": [[column.title, column.cell(row)] for column in shown if row[column.key] is not None],
            }
            for row in drawn
        ],
    }


def _axis(name: str, values: Sequence[float], rate: str) -> dict[str, Any]:
    scale = prefix_of(name, max(map(abs, values), default=0.0), rate)
    return {
        "title": heading(name),
        "unit": scale.unit,
        "size": scale.size,
        "higher": METRICS[name].higher_is_better,
    }
