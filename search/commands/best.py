"""``paretune best [study=NAME] [objective=throughput]``: one candidate of the front, as settings to run it with."""

from __future__ import annotations

import json

from objectives.metrics import METRICS
from search.commands.stored import StoredStudy, load
from search.config import metric_name
from search.errors import NothingFeasible
from search.records import TrialRecord


def main(arguments: list[str]) -> int:
    """Print the recommended candidate (or the front's best in one metric) as JSON in base units."""
    study = load(arguments, options=("objective",))
    if not study.front.front:
        gap = (
            f"; nearest miss: trial {study.front.nearest_miss}, {study.front.gap:.4f} below" if study.front.gap else ""
        )
        raise NothingFeasible(
            f"no trial of {study.config.name} reaches the accuracy floor {study.front.floor:.4f}{gap}"
        )
    chosen = choose(study, study.options.get("objective"))
    print(json.dumps({"study": study.config.name, "trial": chosen.number, **_settings(study, chosen)}, indent=2))
    return 0


def choose(study: StoredStudy, objective: str | None) -> TrialRecord:
    """The recommended trial, or the best of the front in ``objective``."""
    by_number = {record.number: record for record in study.records}
    if objective is None:
        assert study.front.recommended is not None
        return by_number[study.front.recommended]
    name = metric_name(objective)
    sign = -1.0 if METRICS[name].higher_is_better else 1.0
    return min((by_number[number] for number in study.front.front), key=lambda r: sign * r.metrics[name])


def _settings(study: StoredStudy, record: TrialRecord) -> dict[str, object]:
    return {
        "settings": {**study.config.space.fixed(), **record.params},
        "metrics": dict(record.metrics),
        "accuracy_floor": study.front.floor,
    }
