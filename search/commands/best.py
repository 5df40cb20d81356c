"""``paretune best [study=NAME] [objective=throughput] [max_memory=120e6] [--inverse]``: print one candidate as JSON.

Prints the settings and metrics of one candidate of a stored study, by default of the latest study. A candidate is
feasible when its accuracy reaches the study's floor.

  (no option)          the recommended candidate
  objective=METRIC     the member of the Pareto front that is best in this metric
  max_memory=BYTES     the best feasible candidate whose peak memory is at most this, by the study's first objective
                       or by the one that ``objective`` names
  --inverse            the feasible candidate with the fewest bits per weight, among equals the one with the least
                       peak memory
"""

from __future__ import annotations

import json
import math

from objectives.metrics import METRICS
from search.commands.stored_study import StoredStudy, load
from search.config.scalars import metric_name
from search.errors import ConfigError, NothingFeasible
from search.front.asked import FLOOR, tasks_of
from search.records.trial import TrialRecord
from search.reporting.html import plain

OPTIONS = ("objective", "max_memory", "inverse")


def main(arguments: list[str]) -> int:
    """Print the candidate as JSON in base units."""
    study = load(["inverse=true" if word == "--inverse" else word for word in arguments], options=OPTIONS)
    if not study.front.front:
        gap = (
            f"; nearest miss: trial {study.front.nearest_miss}, {study.front.gap:.4f} below" if study.front.gap else ""
        )
        if study.front.missed_by:
            raise NothingFeasible(
                f"no trial of {study.config.name} keeps all that is asked; nearest miss: trial "
                f"{study.front.nearest_miss}, {study.front.missed_by}"
            )
        raise NothingFeasible(
            f"no trial of {study.config.name} reaches the accuracy floor {study.front.floor:.4f}{gap}"
        )
    chosen = choose(study, study.options)
    candidate = {"study": study.config.name, "trial": chosen.number, **_settings(study, chosen)}
    print(json.dumps(plain(candidate), indent=2, allow_nan=False))
    return 0


def choose(study: StoredStudy, options: dict[str, str]) -> TrialRecord:
    """Return the trial that ``options`` ask for. Raises NothingFeasible where none fits."""
    by_number = {record.number: record for record in study.records}
    inverse = options.get("inverse", "false")
    if inverse not in ("true", "false"):
        raise ConfigError(f"inverse: true or false, got {inverse!r}")
    objective = metric_name(options["objective"]) if "objective" in options else None
    limit = _bytes(options["max_memory"]) if "max_memory" in options else math.inf
    if inverse == "false" and objective is None and math.isinf(limit):
        if study.front.recommended is None:
            raise NothingFeasible("tradeoff: it has no finite value for any member of the front; name an objective=")
        return by_number[study.front.recommended]
    wide = inverse == "true" or math.isfinite(limit)  # a dominated trial may be the one that fits
    fitting = [
        record
        for number in (sorted(study.front.feasible) if wide else study.front.front)
        if (record := by_number[number]).cached_from is None and record.metrics["peak_memory"] <= limit
    ]
    if not fitting:
        least = min(by_number[number].metrics["peak_memory"] for number in study.front.feasible)
        raise NothingFeasible(f"max_memory: no feasible trial fits; the smallest needs {least:.0f} bytes")
    if inverse == "true":
        return min(
            fitting, key=lambda r: (r.metrics.get("effective_bits", math.inf), r.metrics["peak_memory"], r.number)
        )
    name = objective or study.front.objectives[0]
    sign = -1.0 if METRICS[name].higher_is_better else 1.0
    missing = sorted(record.number for record in fitting if name not in record.metrics)
    if missing:
        raise ConfigError(f"objective: {name} is not measured in trial {missing[0]}")
    return min(fitting, key=lambda record: (sign * record.metrics[name], record.number))


def _bytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not size > 0:
        raise ConfigError(f"max_memory: bytes above 0, as 120e6; got {text!r}")
    return size


def _settings(study: StoredStudy, record: TrialRecord) -> dict[str, object]:
    tasks = tasks_of(record.metrics)
    return {
        "settings": {**study.config.space.fixed(), **record.params},
        "metrics": dict(record.metrics),
        "accuracy_floor": {task: record.metrics[f"{FLOOR}{task}"] for task in tasks} if tasks else study.front.floor,
    }
