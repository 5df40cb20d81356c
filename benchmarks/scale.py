"""What many devices, many trials and a store on a server cost: overhead, efficiency, and a study of 10,000 trials.

    python benchmarks/scale.py [--parts overhead,devices,executors,trials,drivers]

Writes docs/benchmarks/scale.json and .md; ``--parts`` measures some again and keeps the rest. Devices are simulated: a
recorded grid (:mod:`grids`) is replayed, on a clock of its own (``devices``) or by real processes and actors that sleep
as long as each stage once took (``executors``).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

sys.path.append(sys.path.pop(0))  # this folder has a file named as a package of ours
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fleet import Fleet, on_its_clock
from grids import OUT, read
from hydra import compose, initialize_config_dir
from recorded import OnRecorded
from replay import Grid

from objectives.evaluation.problem import Problem
from search.commands.run import CONF, plain
from search.config.study_config import StudyConfig, build_config
from search.executors import local, ray_cluster
from search.executors.in_process import InProcess
from search.executors.local import Local
from search.executors.place import Place
from search.executors.protocol import Executor, Session
from search.executors.ray_cluster import RayCluster
from search.executors.worker import Worker
from search.reporting.finish import report_and_track
from search.study.study import StudyResult, run_study
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.silent import Silent
from tests.faults.closed_form import ClosedForm

FLOORS = {"minilm": 0.97, "smollm2": 0.85}
DEVICES = (1, 2, 4, 8)
SPEEDS = {"exhaustive": 5.0, "frontier": 2.0}
SEEDS = 3
Row = dict[str, Any]


class Quiet:
    """Progress that shows nothing."""

    def stage(self, _text: str) -> None: ...
    def scoring(self, _far: object) -> None: ...
    def trial(self, _records: object, _front: object) -> None: ...


class OnClosedForm:
    """The executor ``inner`` with a closed form in place of a model: a trial takes no time."""

    def __init__(self, inner: Executor, folder: str) -> None:
        self.inner, self.folder = inner, folder
        (Path(folder) / "plan.json").write_text("{}")

    def start(self, problem: Problem) -> Session:
        given = {field.name: getattr(problem, field.name) for field in fields(Problem)}
        return self.inner.start(ClosedForm(**given, folder=self.folder))


def config_of(*words: str) -> StudyConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_config(plain(compose("config", overrides=[*words, "confirm=false", "cache=null", "device=cpu"])))


# ---- overhead


def overhead(storage: str | None, tracker: object, executor: Executor, sampler: str, count: int = 60) -> Row:
    """Milliseconds a trial: of the driver's CPU, and of the wall, from the third trial on."""
    ratios = ",".join(f"{place / 20:g}" for place in range(10))
    with tempfile.TemporaryDirectory() as home:
        words = [
            "experiment=ci_tiny", f"home={home}", f"sampler={sampler}", f"n_trials={count}", "tracker=none",
            f"space.pruning.ratio=[{ratios}]", "space.quantization.bits=[16,8,4]", "space.workload.batch_size=[1,2,4,8]",
            f"study_name=overhead{time.time_ns()}", *([f"storage={storage}"] if storage else []),
        ]  # fmt: skip
        stamps: list[tuple[float, float]] = []

        class Stamping(Quiet):
            def trial(self, _records: object, _front: object) -> None:
                stamps.append((time.perf_counter(), time.process_time()))

        config = replace(config_of(*words), tracker=tracker, executor=OnClosedForm(executor, home))  # type: ignore[arg-type]
        result = run_study(config, Stamping())
        result.mirror.close(_end(result))
        (wall, cpu), (wall_end, cpu_end) = stamps[2], stamps[-1]
    trials = len(stamps) - 3
    return {"wall_ms": 1e3 * (wall_end - wall) / trials, "cpu_ms": 1e3 * (cpu_end - cpu) / trials}


def _end(result: StudyResult) -> Any:
    from search.tracking.protocol import StudyEnd

    return StudyEnd((), result.stop_reason, {}, {}, ())


@contextmanager
def server() -> Any:
    """Start PostgreSQL as the tests do; yield its URL, None where it is not installed."""
    from tests.search.study import postgresql

    if not postgresql.PLACES:
        yield None
        return
    started = postgresql.postgresql.__wrapped__()  # type: ignore[attr-defined]
    yield next(started).url
    next(started, None)


def overheads() -> list[Row]:
    found = []

    def take(name: str, *arguments: Any) -> None:
        runs = [overhead(*arguments) for _ in range(3)]
        found.append({"what": name, **{key: median(run[key] for run in runs) for key in runs[0]}})
        print(found[-1], flush=True)

    take("sqlite, no tracker, in_process, random", None, Silent(), InProcess(), "random")
    take("... frontier", None, Silent(), InProcess(), "frontier")
    take("... tpe", None, Silent(), InProcess(), "tpe")
    take("... worker", None, Silent(), Worker(), "random")
    take("... local, 2 processes", None, Silent(), Local(cpus=1), "random")
    take("... ray, 2 actors", None, Silent(), RayCluster(devices=2), "random")
    take("... MLflow on sqlite", None, MlflowTracker(), InProcess(), "random")
    with server() as url:
        if url:
            take("PostgreSQL, no tracker, in_process, random", url, Silent(), InProcess(), "random")
    return found


# ---- devices


def study_of(grid: Grid, name: str, home: str, *more: str) -> StudyConfig:
    values = {path: json.dumps(list(axis)) for path, axis in grid.recorded["axes"].items()}
    return config_of(
        f"experiment={'minilm_retrieval' if name == 'minilm' else 'quickstart'}", "quantization=mixed",
        "n_trials=100000", "tracker=none", f"home={home}", f"accuracy_floor.epsilon={grid.epsilon}",
        *(f"space.{path}={axis}" for path, axis in values.items()), *more,
    )  # fmt: skip


def replayed(name: str, sampler: str, devices: int, seed: int) -> Row:
    """Replay a study on several devices, on a clock of its own."""
    grid = Grid(read(name), FLOORS[name])
    fleet = Fleet(grid, seed=seed, devices=devices)
    limit = ["n_trials=96"] if sampler == "tpe" else []
    with tempfile.TemporaryDirectory() as home:
        config = study_of(grid, name, home, f"sampler={sampler}", f"seed={seed}", "study_name=replayed", *limit)
        with on_its_clock(fleet):
            result = run_study(replace(config, executor=fleet), Quiet())
    members = sorted(tuple(r.params.values()) for r in result.records if r.number in result.front.front)
    share, lacks, wrong = grid.share(members)  # type: ignore[arg-type]
    return {
        "wall": fleet.now, "spent": fleet.spent, "trials": len(result.records), "members": members, "hypervolume": share,
        "lacks": lacks, "infeasible": wrong, "stop": str(result.stop_reason),
    }  # fmt: skip


def devices() -> list[Row]:
    found = []
    for name in FLOORS:
        for sampler in ("frontier", "tpe", "exhaustive"):
            seeds = range(1 if sampler == "exhaustive" else SEEDS)
            first = [replayed(name, sampler, 1, seed) for seed in seeds]
            for count in DEVICES:
                runs = first if count == 1 else [replayed(name, sampler, count, seed) for seed in seeds]
                found.append({
                    "grid": name, "sampler": sampler, "devices": count,
                    "wall": mean(run["wall"] for run in runs), "spent": mean(run["spent"] for run in runs),
                    "wall_share": mean(run["wall"] / one["wall"] for run, one in zip(runs, first)),
                    "spent_share": mean(run["spent"] / one["spent"] for run, one in zip(runs, first)),
                    "trials": mean(run["trials"] for run in runs),
                    "hypervolume": min(run["hypervolume"] for run in runs),
                    "lacks": max(run["lacks"] for run in runs),
                    "same": sum(run["members"] == one["members"] for run, one in zip(runs, first)),
                    "seeds": len(runs),
                })  # fmt: skip
                print(found[-1], flush=True)
    return found


# ---- executors


def behind(inner: Executor, sampler: str, speed: float) -> Row:
    """Run a study over the recorded grid of MiniLM behind a real executor, ``speed`` times as fast."""
    grid = Grid(read("minilm"), FLOORS["minilm"])
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        config = study_of(grid, "minilm", home, f"sampler={sampler}", "study_name=behind")
        executor = OnRecorded(inner, "minilm", FLOORS["minilm"], folder, speed)
        stamps: list[float] = []

        class Stamping(Quiet):
            def trial(self, _records: object, _front: object) -> None:
                stamps.append(time.perf_counter())

        result = run_study(replace(config, executor=executor), Stamping())
        wall = stamps[-1] - stamps[0] + result.records[0].seconds  # from the baseline's start to the last trial's end
        spent = executor.spent
    members = sorted(tuple(r.params.values()) for r in result.records if r.number in result.front.front)
    _, lacks, _ = grid.share(members)  # type: ignore[arg-type]
    return {"wall": wall * speed, "spent": spent, "members": members, "lacks": lacks, "trials": len(result.records)}


def executors(speeds: Mapping[str, float]) -> list[Row]:
    found = []
    local.places_of = lambda *_: [Place()] * 8  # type: ignore[assignment]
    ray_cluster.os = SimpleNamespace(**{**vars(os), "sched_getaffinity": lambda _: range(8)})  # type: ignore[assignment]
    for sampler, speed in speeds.items():
        one = behind(Worker(), sampler, speed)
        for name, inner in (("worker", None), ("local", Local(cpus=1)), ("ray", RayCluster(devices=8))):
            run = one if inner is None else behind(inner, sampler, speed)
            found.append({
                "sampler": sampler, "executor": name, "devices": 1 if inner is None else 8, "speed": speed,
                "wall": run["wall"], "spent": run["spent"], "trials": run["trials"],
                "wall_share": run["wall"] / one["wall"], "spent_share": run["spent"] / one["spent"],
                "same": run["members"] == one["members"], "lacks": run["lacks"],
            })  # fmt: skip
            print(found[-1], flush=True)
    return found


# ---- many trials


def trials(count: int = 10_000) -> Row:
    """Run ``count`` trials of a closed form on sqlite, then write the report."""
    ratios = ",".join(f"{place / 5000:g}" for place in range(count // 12 + 1))
    with tempfile.TemporaryDirectory() as home:
        config = config_of(
            "experiment=ci_tiny", f"home={home}", "sampler=exhaustive", f"n_trials={count}", "tracker=none",
            f"space.pruning.ratio=[{ratios}]", "space.quantization.bits=[16,8,4]", "space.workload.batch_size=[1,2,4,8]",
            "study_name=many",
        )  # fmt: skip
        stamps: list[float] = []

        class Stamping(Quiet):
            def trial(self, _records: object, _front: object) -> None:
                stamps.append(time.process_time())

        config = replace(config, executor=OnClosedForm(InProcess(), home))  # type: ignore[arg-type]
        result = run_study(config, Stamping())
        began = time.perf_counter()
        report_and_track(result)
        seconds = time.perf_counter() - began
        page = next(Path(home).glob("reports/*/report.html")).stat().st_size
    tenth = len(stamps) // 10
    return {
        "trials": len(result.records), "report_seconds": seconds, "page_bytes": page,
        "first_ms": 1e3 * (stamps[tenth] - stamps[0]) / tenth,
        "last_ms": 1e3 * (stamps[-1] - stamps[-1 - tenth]) / tenth,
    }  # fmt: skip


# ---- many drivers


def drivers(url: str | None, count: int, each: int) -> Row:
    """Run ``count`` drivers of ``each`` trials at once on one store, each a process; None: an sqlite file."""
    from tests.faults.conftest import Study, ended

    with tempfile.TemporaryDirectory() as folder:
        storage = url or f"sqlite:///{folder}/shared.db"
        words = (
            "experiment=ci_tiny", "device=cpu", "sampler=random", "tracker=none", "confirm=false", "executor=in_process",
            "space.pruning.ratio=[0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.05,0.15]", "space.quantization.bits=[16,8,4]",
            "space.workload.batch_size=[1,2,4,8]", f"n_trials={each}",
        )  # fmt: skip
        studies = [Study(Path(folder) / f"home{place}", storage, words).plan() for place in range(count)]
        began = time.perf_counter()
        running = [study.start(f"study_name=study{place}") for place, study in enumerate(studies)]
        codes = [ended(process, 900).code for process in running]
        seconds = time.perf_counter() - began
        whole = [study.trials(f"study{place}") for place, study in enumerate(studies)]
    stored = sum(len(one) for one in whole)
    left = sum(trial.state.name == "RUNNING" for one in whole for trial in one)
    twice = sum(len(one) - len({tuple(sorted(trial.params.items())) for trial in one}) for one in whole)
    return {
        "store": "PostgreSQL" if url else "sqlite", "drivers": count, "each": each, "failed": sum(map(bool, codes)),
        "lost": count * each - stored, "running": left, "twice": twice, "seconds": seconds,
    }  # fmt: skip


def many_drivers() -> list[Row]:
    found = [drivers(None, 16, 25)]
    print(found[-1], flush=True)
    with server() as url:
        if url:
            found.append(drivers(url, 8, 125))
            print(found[-1], flush=True)
    return found


# ---- the page


def table(rows: Sequence[Row], columns: Mapping[str, tuple[str, Callable[[Any], str]]]) -> list[str]:
    heads = [head for head, _ in columns.values()]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("---" for _ in heads) + "|"]
    return lines + ["| " + " | ".join(show(row[key]) for key, (_, show) in columns.items()) + " |" for row in rows]


def page(found: Mapping[str, Any]) -> str:
    ms, s = "{:.0f}".format, "{:.0f} s".format
    times, share, plain_text = "{:.2f}x".format, "{:.4f}".format, str
    lines = [
        "# Many devices, many trials",
        "",
        "`python benchmarks/scale.py` makes this page.",
        f"{found['machine']}.",
        "",
    ]
    if "overhead" in found:
        lines += [
            "## What a trial costs besides its measuring",
            "",
            "A closed form in place of a model; 60 trials of 120 cells, medians of 3 studies. 30 ms of CPU are the goal.",
            "",
        ]
        lines += table(
            found["overhead"],
            {"what": ("", plain_text), "cpu_ms": ("driver's CPU, ms", ms), "wall_ms": ("wall, ms", ms)},
        )
        lines += [""]
    if "devices" in found:
        lines += [
            "## 1 to 8 devices", "",
            "Recorded grids, on a clock of their own; shares are of one device. `frontier` stops by itself, `tpe` after 96 trials,",
            "`exhaustive` after all cells. *lacks*: the factor, less one, within which its front covers the true one. *same*: seeds with the",
            "very members that one device finds; others differ by less than the resolution of 2 %.", "",
        ]  # fmt: skip
        lines += table(found["devices"], {
            "grid": ("grid", plain_text), "sampler": ("sampler", plain_text), "devices": ("devices", plain_text),
            "wall": ("wall", s), "wall_share": ("of one", times), "spent": ("all devices", s), "spent_share": ("of one", times),
            "trials": ("trials", ms), "hypervolume": ("least hypervolume", share),
            "lacks": ("lacks", lambda lacks: f"{lacks:.1%}"), "same": ("same", plain_text), "seeds": ("seeds", plain_text),
        })  # fmt: skip
        lines += [""]
    if "executors" in found:
        lines += [
            "## Real executors",
            "",
            "The grid of MiniLM behind real processes and actors that sleep as long as each stage took, divided by *speed*; what the",
            "sampler takes is not divided. From the baseline's start to the end of the last trial. *lacks*: the factor, less one, within",
            "which its front covers the true one; `frontier` stops within its resolution of 2 %, on one device too. The goal of 8 devices",
            "is 1.25x of all device seconds and 0.20x of the wall: `frontier` misses it ([why](../log.md)).",
            "",
        ]
        lines += table(found["executors"], {
            "sampler": ("sampler", plain_text), "executor": ("executor", plain_text), "devices": ("devices", plain_text),
            "speed": ("speed", plain_text), "wall": ("wall", s), "wall_share": ("of one", times), "spent": ("all devices", s),
            "spent_share": ("of one", times), "trials": ("trials", plain_text), "same": ("the same members", plain_text),
            "lacks": ("lacks", "{:.1%}".format),
        })  # fmt: skip
        lines += [""]
    if "trials" in found:
        many = found["trials"]
        lines += [
            f"## {many['trials']:,} trials", "",
            f"The driver's CPU a trial: {many['first_ms']:.0f} ms in the first tenth, {many['last_ms']:.0f} ms in the last. The report takes "
            f"{many['report_seconds']:.1f} s; its page has {many['page_bytes'] / 1e6:.1f} MB.", "",
        ]  # fmt: skip
    if "drivers" in found:
        lines += ["## Many drivers on one store", ""]
        lines += table(found["drivers"], {
            "store": ("store", plain_text), "drivers": ("drivers", plain_text), "each": ("trials each", plain_text),
            "failed": ("failed", plain_text), "lost": ("lost", plain_text), "running": ("left running", plain_text),
            "twice": ("cells twice", plain_text), "seconds": ("seconds", ms),
        })  # fmt: skip
        lines += [""]
    if {"overhead", "trials"} <= set(found):
        lines += estimate(found)
    return "\n".join(lines)


def estimate(found: Mapping[str, Any]) -> list[str]:
    """Say on paper what a thousand devices would do to one driver."""
    wall = {row["what"]: row["wall_ms"] for row in found["overhead"]}
    asked = wall["... ray, 2 actors"]
    look = wall["... frontier"]
    return [
        "## A thousand devices, on paper", "",
        f"One driver hands out a trial every {asked:.0f} ms by Ray with `random`, and every {look:.0f} ms with `frontier` on 120 cells. A thousand devices whose trials take "
        f"{asked:.0f} s keep it busy all the time; with trials of a minute it is busy {asked / 60:.0%} of it. A grid needs many more cells than devices for `frontier` to be "
        "of use: at 8 devices it measures already what it would have ruled out. So a thousand devices are better spent on many studies (Hydra's launchers) than on one.", "",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="overhead,devices,executors,trials,drivers")
    parser.add_argument(
        "--samplers", default="exhaustive,frontier", help="those behind real executors; others are kept"
    )
    given = parser.parse_args()
    wanted, samplers = (set(filter(None, each.split(","))) for each in (given.parts, given.samplers))
    file = OUT / "scale.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    makes: dict[str, Callable[[], Any]] = {
        "overhead": overheads, "devices": devices, "trials": trials, "drivers": many_drivers,
        "executors": lambda: [
            *(row for row in found.get("executors", []) if row["sampler"] not in samplers),
            *executors({name: speed for name, speed in SPEEDS.items() if name in samplers}),
        ],
    }  # fmt: skip
    for name, make in makes.items():
        if name in wanted:
            found[name] = make()
            found["machine"] = machine()
            file.write_text(json.dumps(found, indent=1) + "\n")
    (OUT / "scale.md").write_text(page(found))
    return 0


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0]}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    sys.exit(main())
