"""How cheaply the front is found: ours and Optuna's samplers, replayed over exhaustive grids of real models.

    python benchmarks/search.py [--parts replay,races,adversarial,memory,overhead,live]
    python benchmarks/search.py --check     a short form, under 10 minutes on 2 cores

Writes docs/benchmarks/search.json and .md; ``--parts`` measures some again and keeps the rest (none: the page alone).
``--check`` replays from the recorded grids, writes nothing and exits 1, naming every line that does not hold. Costs are
shares of measuring every cell by itself (load, statistics, compress, score, time), the sampler's own seconds included.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes on two cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

sys.path.append(sys.path.pop(0))  # this file must not hide the package of its name

import optuna
import overheads
import races
import rivals
from asked import lines_of
from grids import OUT, read
from hydra import compose, initialize_config_dir
from live import side_by_side
from replay import Grid, Replay
from search_page import page
from surfaces import Surface

from search.commands.run import CONF, plain
from search.config.study_config import StudyConfig, build_config
from search.front.table import BATCH, BITS, RATIO
from search.study.study import run_study

FLOORS: Mapping[str, tuple[float, ...]] = {"minilm": (0.95, 0.97, 0.99), "smollm2": (0.75, 0.85, 0.95)}
COMPARED: Mapping[str, float] = {"minilm": 0.97, "smollm2": 0.85}
"""The floor at which Optuna's samplers are replayed as well."""
IN_STUDY, IN_STUDY_TRIALS = ", in a study", {"tpe": 192, "gp": 120}
TOLD = ("found out by running out", "refused by prediction")
Row = dict[str, Any]
State = dict[str, Any]


# ---- one study over a grid


def grid_of(name: str, seed: int, floor: float) -> Grid:
    """A recorded grid, or a made-up one, whose floor is its own."""
    if name == "adversarial":
        surface = Surface()
        return Grid(surface.recorded(seed), surface.floor(seed))
    return Grid(read(name), floor)


def study(grid: Grid, name: str, home: str, *more: str) -> StudyConfig:
    """The study of a grid, as a user would write it."""
    values = {path: json.dumps(list(axis)) for path, axis in grid.recorded["axes"].items()}
    overrides = [
        f"experiment={'minilm_retrieval' if name == 'minilm' else 'quickstart'}", "sampler=frontier",
        "quantization=mixed", "n_trials=100000", "confirm=false", "tracker=none", "cache=null", f"home={home}",
        f"accuracy_floor.epsilon={grid.epsilon}", *(f"space.{path}={axis}" for path, axis in values.items()), *more,
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_config(plain(compose("config", overrides=overrides)))


def ours(name: str, seed: int, floor: float, *more: str, goal: float = math.inf) -> Row:
    """A whole study, run as it is. ``goal``: see :class:`replay.Replay`."""
    grid = grid_of(name, seed, floor)
    replay = Replay(grid, seed, goal)
    with tempfile.TemporaryDirectory() as home:
        config = replace(study(grid, name, home, *more), executor=replay)
        result = run_study(config, overheads.Silent())
    front = [rivals.cell_of(result.records[number].params) for number in result.front.front]
    volume, lacks, infeasible = grid.share(front)
    base = grid.exhaustive_seconds
    return {
        "volume": volume, "lacks": lacks, "infeasible": infeasible, "cost": replay.spent / base,
        "until": rivals.until(grid, replay.trail), "trials": len(result.records), "timed": replay.timed,
        "asking": replay.asking / max(1, len(result.records)), "recipes": len(replay.shares),
        "examples": mean(replay.shares.values()), "wrong": replay.wrong, "stopped": str(result.stop_reason),
        "failed": sum(record.state == "failed" for record in result.records), "members": len(front),
        "least": grid.members_seconds / base,
    }  # fmt: skip


# ---- parts


def replayed(names: Sequence[str], seeds: int, rival_seeds: Mapping[str, int]) -> State:
    """Ours at every floor, Optuna's at one: rows by grid, floor and sampler."""
    jobs = [(ours, (name, seed, floor)) for name in names for floor in FLOORS[name] for seed in range(seeds)]
    keys = [(name, floor, "ours") for name in names for floor in FLOORS[name] for _ in range(seeds)]
    for name in names:
        for sampler, count in rival_seeds.items():
            jobs += [(rival, (name, sampler, seed, COMPARED[name])) for seed in range(count)]
            keys += [(name, COMPARED[name], sampler)] * count
    found: State = {}
    for (name, floor, sampler), row in zip(keys, _all(jobs), strict=True):
        found.setdefault(name, {}).setdefault(str(floor), {}).setdefault(sampler, []).append(row)
    return found


def rival(name: str, sampler: str, seed: int, floor: float) -> Row:
    """Optuna's sampler as its own users run it, or ``in a study`` of ours, with racing, cache and known failures."""
    alone, inside, _ = sampler.partition(IN_STUDY)
    if not inside:
        return rivals.search(grid_of(name, seed, floor), sampler, seed)
    more = f"sampler={alone}", f"n_trials={IN_STUDY_TRIALS[alone]}", f"seed={seed}"
    return ours(name, seed, floor, *more, goal=rivals.LEVELS[-1])


def raced(names: Sequence[str], grids: int) -> State:
    """Verdicts over made-up grids, at the error of a study spread over its recipes and at 2.5 % each, and recorded."""
    made_up = {"of a study": 0.05, "2.5 % each": 0.025 * 32}
    found: State = {}
    for label, error in made_up.items():
        own = [one for seed in range(grids) for one in races.verdicts(grid_of("adversarial", seed, 0.0), error, seed)]
        found[f"made-up, error {label}"] = races.summary(own)
    for name in names:
        for floor in FLOORS[name]:
            own = [one for seed in range(3) for one in races.verdicts(grid_of(name, 0, floor), 0.05, seed)]
            found[f"{name}, floor {floor}"] = races.summary(own)
    return found


def adversarial(seeds: int) -> State:
    """Made-up grids that mislead, as real studies."""
    return {"rows": list(_all([(ours, ("adversarial", seed, 0.0)) for seed in range(seeds)]))}


def memory(seeds: int, trials: int = 60) -> State:
    """Where two cells of five run out of memory, by kind of failure: ours beside TPE."""
    kinds = {"ours": own_in_little, "tpe, told as failed": tpe_failed, "tpe, told as constraint": tpe_constrained}
    jobs = [(one, (seed, trials, told)) for told in TOLD for one in kinds.values() for seed in range(seeds)]
    rows = iter(_all(jobs))
    return {told: {kind: [next(rows) for _ in range(seeds)] for kind in kinds} for told in TOLD}


def _little(seed: int, told: str) -> Grid:
    surface = Surface(nugget=0.03, rises=0.0, memory=0.6, predicted=told == TOLD[1])
    return Grid(surface.recorded(seed), surface.floor(seed))


def own_in_little(seed: int, trials: int, told: str) -> Row:
    grid = _little(seed, told)
    replay = Replay(grid, seed)
    with tempfile.TemporaryDirectory() as home:
        config = replace(study(grid, "adversarial", home, f"n_trials={trials}"), executor=replay)
        result = run_study(config, overheads.Silent())
    front = [rivals.cell_of(result.records[number].params) for number in result.front.front]
    failed = sum(record.reason == "out_of_memory" for record in result.records)
    return {"failed": failed, "front": len(front), "volume": grid.share(front)[0], "trials": len(result.records)}


def tpe_failed(seed: int, trials: int, told: str) -> Row:
    return _tpe_in_little(_little(seed, told), seed, trials, "fail")


def tpe_constrained(seed: int, trials: int, told: str) -> Row:
    return _tpe_in_little(_little(seed, told), seed, trials, "constraint")


def _tpe_in_little(grid: Grid, seed: int, trials: int, failed: str) -> Row:
    space, seen = rivals.study_of(grid, "tpe", seed), list[rivals.Cell]()
    for _ in range(trials):
        trial = space.ask()
        seen.append(rivals.asked(trial, grid.axes))
        rivals.tell(space, trial, grid, seen[-1], failed=failed)
    lost = sum("metrics" not in grid.cells[key] for key in seen)
    return {"failed": lost, "front": grid.members(seen), "volume": grid.share(seen)[0], "trials": trials}


def overhead(trials: int) -> State:
    """Seconds of a look, and of a trial early and late in a long study."""
    small, large = overheads.grid_of(10, 5, 8), overheads.grid_of(50, 20, 20)
    found: State = {"looks": [], "hard": [], "trials": trials}
    for grid, measured in ((small, 30), (small, 100), (large, 60), (large, 200), (large, 10_000)):
        found["looks"].append((len(grid), measured, overheads.look_seconds(grid, measured)))
    for grid, measured in ((small, 100), (large, 200), (large, 10_000)):
        found["hard"].append((len(grid), measured, overheads.look_seconds(grid, measured, hard=True)))
    axes = {RATIO: [round(0.01 * step, 2) for step in range(64)], BITS: [16, 8, 4], BATCH: list(range(1, 105))}
    overrides = [
        "experiment=quickstart", "sampler=random", "confirm=false", "tracker=none", "cache=null", "home=mlruns",
        *(f"space.{path}={json.dumps(values)}" for path, values in axes.items()),
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_config(plain(compose("config", overrides=overrides)))
    found["early"], found["late"] = overheads.long_study(config, trials)
    return found


def _all(jobs: Iterable[tuple[Callable[..., Row], tuple[Any, ...]]]) -> Iterator[Row]:
    """Two processes at a time."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield from pool.imap(_job, list(jobs))


def _job(job: tuple[Callable[..., Row], tuple[Any, ...]]) -> Row:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    function, arguments = job
    return function(*arguments)


# ---- command line


def measure(parts: Sequence[str], short: bool) -> State:
    """Those parts, each in turn."""
    names = [name for name in FLOORS if (OUT / f"grid_{name}.json.gz").is_file()]
    inside = [f"{sampler}{IN_STUDY}" for sampler in IN_STUDY_TRIALS]
    whole = {**dict.fromkeys([*rivals.SAMPLERS, *inside], 10), inside[1]: 5}  # GP takes seconds to ask
    rival_seeds = {"gp": 3, "tpe": 3, inside[0]: 3} if short else whole
    found: State = {}
    measures: dict[str, Callable[[], State]] = {
        "replay": lambda: replayed(names, 3 if short else 10, rival_seeds),
        "races": lambda: raced(names, 7),
        "adversarial": lambda: adversarial(12 if short else 100),
        "memory": lambda: memory(6),
        "overhead": lambda: overhead(1500 if short else 10_000),
        "live": lambda: side_by_side("minilm_retrieval", 36),
    }
    for part in parts:
        began = time.perf_counter()
        found[part] = measures[part]()
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    return found


def main() -> int:
    """Measure, print what is asked and what came, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--parts", default="replay,races,adversarial,memory,overhead,live")
    arguments = parser.parse_args()
    parts = [part for part in arguments.parts.split(",") if part and not (arguments.check and part == "live")]
    state = measure(parts, arguments.check)
    if not arguments.check:
        path = OUT / "search.json"
        state = {**(json.loads(path.read_text()) if path.is_file() else {}), **state}
        path.write_text(json.dumps(state, indent=1) + "\n")
        shares = {name: grid_of(name, 0, floors[0]) for name, floors in FLOORS.items() if name in state["replay"]}
        once = {name: grid.exhaustive_seconds / grid.factorised_seconds for name, grid in shares.items()}
        path.with_suffix(".md").write_text(page(state, lines_of(state), once))
    lines = list(lines_of(state))
    for asked, measured, holds in lines:
        print(f"{'ok    ' if holds else 'BROKEN'} | {asked} | {measured}")
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
