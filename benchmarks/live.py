"""The same study twice on the real thing: ours, which stops by itself, and Optuna's GP, which is given every cell."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from search.commands.stored_study import StoredStudy, load
from search.front.pareto import hypervolume
from search.records.trial import TrialRecord

ROOT = Path(__file__).parents[1]
GOAL = 0.999


def side_by_side(experiment: str, cells: int) -> dict[str, Any]:
    """Wall seconds, trials and hypervolume of both; ``there``: trial seconds until theirs reached ours."""
    with tempfile.TemporaryDirectory() as home:
        walls = {}
        for sampler in ("frontier", "gp"):
            began = time.perf_counter()
            command = [
                sys.executable, "-m", "search.cli", "run", f"experiment={experiment}", f"sampler={sampler}",
                f"study_name={sampler}", f"n_trials={cells}", "cache=null", "tracker=none", f"home={home}",
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            walls[sampler] = time.perf_counter() - began
            print(f"{experiment}, {sampler}: {walls[sampler]:.0f} s", flush=True)
        studies = {sampler: load([f"study={sampler}", f"home={home}"]) for sampler in walls}
    corner = np.array([_point(r) for s in studies.values() for r in _feasible(s)]).max(axis=0) + 0.1
    best = _volume(_feasible(studies["frontier"]), corner)
    return {
        sampler: {
            "wall": walls[sampler], "trials": len(study.records), "front": len(study.front.front),
            "timed": sum("timing_seconds" in record.metrics for record in study.records),
            "volume": _volume(_feasible(study), corner) / best, "there": _there(study, GOAL * best, corner),
        }
        for sampler, study in studies.items()
    }  # fmt: skip


def _feasible(study: StoredStudy) -> list[TrialRecord]:
    return [record for record in study.records if record.number in study.front.feasible]


def _point(record: TrialRecord) -> tuple[float, float]:
    return -float(np.log(record.metrics["speedup"])), float(np.log(record.metrics["peak_memory"]))


def _volume(records: list[TrialRecord], corner: Any) -> float:
    return hypervolume(np.array([_point(record) for record in records]), corner)


def _there(study: StoredStudy, goal: float, corner: Any) -> float | None:
    """Seconds of trials until the hypervolume is that."""
    seconds = list(itertools.accumulate(record.seconds for record in study.records))
    for count, spent in enumerate(seconds, 1):
        seen = [record for record in study.records[:count] if record.number in study.front.feasible]
        if seen and _volume(seen, corner) >= goal:
            return spent
    return None
