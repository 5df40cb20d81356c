"""How cheaply the front is found: ours and Optuna's samplers, replayed over exhaustive grids of real models.

    python benchmarks/search.py            write docs/benchmarks/search.md
    python benchmarks/search.py --check    replay, and exit 1 naming each line that does not hold

Costs are shares of measuring every cell by itself (load, compress, score, time), the sampler's own seconds included.
"Cached" pays for every model and every accuracy once and for no cell twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

sys.path.append(sys.path.pop(0))  # this file must not hide the package of its name

import optuna
from grids import OUT, read
from hydra import compose, initialize_config_dir
from replay import Grid, Replay
from surfaces import Surface

from search.commands.run import CONF, plain
from search.config import StudyConfig, build_config
from search.study import run_study

SEEDS = 10
EPSILON = {"minilm": 0.97, "smollm2": 0.95, "adversarial": 0.99}
CHEAP = {"minilm": 0.08, "smollm2": 0.12}
GOAL = 0.999
CAP = {"gp": 60}
Line = tuple[str, str, bool]
Row = dict[str, Any]


def grid_of(name: str, seed: int) -> Grid:
    """A recorded grid, or a made-up one."""
    recorded = Surface().recorded(seed) if name == "adversarial" else read(name)
    return Grid(recorded, EPSILON[name])


class Silent:
    """Progress that nobody watches."""

    def stage(self, text: str) -> None:
        pass

    def trial(self, records: Any, front: Any) -> None:
        pass


def study(grid: Grid, name: str, home: str) -> StudyConfig:
    """The study of a grid, as a user would write it."""
    values = {path: json.dumps(list(axis)) for path, axis in grid.recorded["axes"].items()}
    overrides = [
        f"experiment={'minilm_retrieval' if name == 'minilm' else 'quickstart'}", "sampler=frontier",
        "quantization=mixed", "n_trials=100000", "confirm=false", "tracker=none", "cache=null", f"home={home}",
        f"accuracy_floor.epsilon={grid.epsilon}", *(f"space.{path}={axis}" for path, axis in values.items()),
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_config(plain(compose("config", overrides=overrides)))


def ours(name: str, seed: int) -> Row:
    """A whole study, run as it is."""
    grid = grid_of(name, seed)
    replay = Replay(grid, seed)
    with tempfile.TemporaryDirectory() as home:
        config = replace(study(grid, name, home), executor=replay)
        began = time.perf_counter()
        result = run_study(config, Silent())
        wall = time.perf_counter() - began
    front = [_key(result.records[number].params) for number in result.front.front]
    volume, lacks, infeasible = grid.share(front)
    base = grid.exhaustive_seconds
    return {
        "volume": volume, "lacks": lacks, "infeasible": infeasible, "cost": replay.spent / base,
        "reached": _reached(grid, replay.trail, GOAL) / base, "trials": len(result.records), "wall": wall,
        "asking": replay.asking / max(1, len(result.records)), "races": len(replay.shares),
        "examples": mean(replay.shares.values()), "wrong": replay.wrong, "stopped": str(result.stop_reason),
    }  # fmt: skip


def _key(params: Mapping[str, Any]) -> tuple[float, float, int]:
    return params["pruning.ratio"], float(params["quantization.bits"]), params["workload.batch_size"]


def _reached(grid: Grid, trail: Sequence[tuple[float, Any]], goal: float) -> float:
    """Seconds until the hypervolume was there; infinite where it never was."""
    seen = []
    for spent, key in trail:
        seen.append(key)
        if grid.share(seen)[0] >= goal:
            return spent
    return float("inf")


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=24),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True),
}


def peer(name: str, sampler: str, seed: int) -> Row:
    """A plain study of Optuna's, until it has what ours has, or as many trials as there are cells."""
    grid = grid_of(name, seed)
    space = optuna.create_study(directions=["minimize", "minimize"], sampler=SAMPLERS[sampler](seed))
    axes = grid.axes
    space.enqueue_trial(
        {axis.parameter: axis.sampled(axis.values[0] if axis.path != "quantization.bits" else 16.0) for axis in axes}
    )
    load, naive, cached, trials = grid.recorded["load_seconds"], 0.0, grid.recorded["load_seconds"], 0
    models, seen = set(), list[tuple[float, float, int]]()
    known: dict[tuple[float, float, int], Any] = {}
    while trials < CAP.get(sampler, len(grid.cells)) and (not seen or grid.share(seen)[0] < GOAL):
        began = time.perf_counter()
        trial = space.ask()
        key = _key({axis.path: axis.value(trial.suggest_int(axis.parameter, 0, len(axis.values) - 1)) for axis in axes})
        own, cell = grid.recipes[key[:2]], grid.cells[key]
        accuracy = own["accuracy"] - grid.floor
        if "metrics" in cell:
            values = [-cell["metrics"]["speedup"], cell["metrics"]["peak_memory"]]
            trial.set_constraint("accuracy", -accuracy)
            space.tell(trial, values)
        else:
            trial.set_constraint("failed", 1.0)
            space.tell(trial, state=optuna.trial.TrialState.PRUNED)
        asked = time.perf_counter() - began
        model = own["compress_seconds"] + own["score_seconds"]
        naive += asked + load + model + cell.get("time_seconds", 0.0)
        cached += (
            asked + (0.0 if key[:2] in models else model) + (0.0 if key in known else cell.get("time_seconds", 0.0))
        )
        models.add(key[:2])
        known[key] = True
        seen.append(key)
        trials += 1
    volume, lacks, _ = grid.share(seen)
    base = grid.exhaustive_seconds
    there = volume >= GOAL
    return {
        "volume": volume,
        "lacks": lacks,
        "naive": naive / base,
        "cached": cached / base,
        "trials": trials,
        "there": there,
    }


def _job(job: tuple[str, str, int]) -> Row:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name, sampler, seed = job
    return ours(name, seed) if sampler == "ours" else peer(name, sampler, seed)


def run(names: Sequence[str], seeds: int) -> dict[str, dict[str, list[Row]]]:
    """Every sampler on every grid, two processes at a time."""
    jobs = [(name, sampler, seed) for name in names for sampler in ("ours", *SAMPLERS) for seed in range(seeds)]
    found: dict[str, dict[str, list[Row]]] = {name: {} for name in names}
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for (name, sampler, _), row in zip(jobs, pool.imap(_job, jobs)):
            found[name].setdefault(sampler, []).append(row)
    return found


def lines_of(found: Mapping[str, Mapping[str, Sequence[Row]]]) -> Iterator[Line]:
    for name, rows in found.items():
        own = rows["ours"]
        cost = mean(row["cost"] for row in own)
        volume = min(row["volume"] for row in own)
        yield (
            f"{name}: hypervolume >= {GOAL} of the exhaustive front, worst of {len(own)} seeds",
            f"{volume:.4f}",
            volume >= GOAL,
        )
        yield f"{name}: at most {CHEAP[name]:.0%} of the exhaustive cost", f"{cost:.1%}", cost <= CHEAP[name]
        lacks = max(row["lacks"] for row in own)
        yield f"{name}: every point of the true front within 2 %", f"{lacks:.1%}", lacks <= 0.02
        infeasible = sum(row["infeasible"] for row in own)
        yield f"{name}: no infeasible member", str(infeasible), infeasible == 0
        stopped = {row["stopped"] for row in own}
        yield f"{name}: stops by itself", ", ".join(sorted(stopped)), stopped == {"complete"}
        best, sampler = min((mean(row["cached"] for row in rows[peer]), peer) for peer in SAMPLERS)
        asked = f"{name}: at most half of the best Optuna sampler with the cache ({sampler}, {best:.1%})"
        yield asked, f"{cost / best:.2f} of it", cost <= best / 2
        wrong = sum(row["wrong"] for row in own) / sum(row["races"] for row in own)
        yield f"{name}: wrong verdicts <= 2 %", f"{wrong:.1%}", wrong <= 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    names = [name for name in EPSILON if (OUT / f"grid_{name}.json.gz").is_file()]
    found = run(names, arguments.seeds)
    for name, rows in found.items():
        for sampler, own in rows.items():
            numbers = {key: mean(row[key] for row in own) for key in own[0] if not isinstance(own[0][key], str)}
            print(name, sampler, {key: round(float(value), 4) for key, value in numbers.items()}, flush=True)
    lines = list(lines_of(found))
    for asked, measured, holds in lines:
        print(f"{'ok    ' if holds else 'BROKEN'} | {asked} | {measured}")
    if not arguments.check:
        (OUT / "search.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
