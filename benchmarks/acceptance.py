"""Check a finished study against what the demo promises, from its files alone.

    python benchmarks/acceptance.py [home=mlruns] [study=latest]

Prints one line per promise, ``asked | measured``, and exits 1 if one is broken: size of the space, distinct cells,
size of the front, accuracy of every front point recomputed from the CSV, int4 bytes in memory and on disk, and the
runs that MLflow holds.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

sys.path.append(sys.path.pop(0))  # search.py beside this file must not hide the package

from search.commands import export
from search.commands.stored_study import StoredStudy, load

Line = tuple[str, str, bool]


def main(arguments: list[str]) -> int:
    study = load(arguments)
    broken = 0
    for asked, measured, holds in checks(study, arguments):
        broken += not holds
        print(f"{'ok ' if holds else 'NO '} | {asked} | {measured}")
    return 1 if broken else 0


def checks(study: StoredStudy, arguments: list[str]) -> Iterator[Line]:
    trials = pd.read_csv(study.config.home / "reports" / study.config.name / "trials.csv")
    front = pd.read_csv(study.config.home / "reports" / study.config.name / "pareto.csv")
    cells = len(study.config.space)
    yield "at least 36 cells in the space", str(cells), cells >= 36
    measured = trials[(trials.state == "complete") & trials.cached_from.isna()]
    distinct = len(measured[["nominal_pruning_ratio", "bits", "batch_size"]].drop_duplicates())
    yield "at least 12 distinct cells measured", str(distinct), distinct >= 12
    yield "a front of at least 3 points", str(len(front)), len(front) >= 3
    floor = study.config.floor.absolute(
        trials.loc[trials.is_baseline & (trials.state == "complete"), "accuracy"].item()
    )
    worst = front.accuracy.min()
    yield "every front point has accuracy >= floor", f"least {worst:.4f}, floor {floor:.4f}", bool(worst >= floor)
    seconds = f"{trials.seconds.sum():.0f} s in trials"
    yield "the study's time", seconds, True
    yield from sizes(trials, arguments)
    yield from tracked(study, len(trials))


def sizes(trials: pd.DataFrame, arguments: list[str]) -> Iterator[Line]:
    """int4 against bf16, blocks only, of an unpruned model."""
    plain = trials[(trials.state == "complete") & (trials.nominal_pruning_ratio == 0)]
    if not (plain.bits == 4).any():
        yield "int4 blocks <= 0.30 of bf16", "no unpruned 4-bit trial in this study", False
        return
    wide, narrow = (plain[plain.bits == bits].iloc[0] for bits in (16, 4))
    ratio = narrow.block_bytes / wide.block_bytes
    yield "int4 blocks <= 0.30 of bf16 in memory", f"{ratio:.4f}", ratio <= 0.30
    with tempfile.TemporaryDirectory() as temporary:
        stored = []
        for row in (wide, narrow):
            folder = Path(temporary) / str(row.trial)
            export.main([*arguments, f"folder={folder}", f"trial={row.trial}"])
            stored.append(block_bytes_on_disk(folder / "model.safetensors"))
    yield "int4 blocks <= 0.30 of bf16 on disk", f"{stored[1] / stored[0]:.4f}", stored[1] / stored[0] <= 0.30


def block_bytes_on_disk(file: Path) -> int:
    """Bytes of the tensors inside the transformer blocks, from the safetensors header."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    offsets = [entry["data_offsets"] for name, entry in header.items() if ".layers." in name or ".layer." in name]
    return sum(stop - start for start, stop in offsets)


def tracked(study: StoredStudy, trials: int) -> Iterator[Line]:
    client = MlflowClient(f"sqlite:///{study.config.home}/mlflow.db")
    experiment = client.get_experiment_by_name(study.config.project)
    runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
    parents = [run for run in runs if run.data.tags.get("mlflow.runName") == study.config.name]
    children = [run for run in runs if parents and run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    holds = len(parents) == 1 and len(children) == trials
    yield "MLflow: one parent, as many children as trials", f"{len(parents)} parent, {len(children)} of {trials}", holds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
