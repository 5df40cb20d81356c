"""The same models in every runtime: how equal, how fast, how large, how good. One thread, CPU seconds, in turns.

Speed-ups are medians of paired ratios over torch bf16 in the same rounds, and over the runtime's own dense fp32.
Prefill computes the logits of the last position everywhere. Quality is that of the runtime itself.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(sys.path.pop(0))  # this file is no package of ours

import torch
from own_rounding import own_rounding

from objectives.cache import Cache
from objectives.devices.cpu import Cpu
from objectives.devices.helpers import cpu_seconds
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.fingerprint import fingerprint
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint
from objectives.protocols.candidate import Candidate, Quantizer, Runtime
from objectives.protocols.running import Runner, Workload
from objectives.pruning.criteria.activation import Activation
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.ctranslate2 import CTranslate2
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.litert import LiteRt
from objectives.runtime.onnxruntime import OnnxRuntime
from objectives.runtime.openvino import OpenVino
from objectives.runtime.torch import Torch
from objectives.tasks.corpora import XSum
from objectives.tasks.embedding import embed
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval
from objectives.types import Phase
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "runtimes"
SMOLLM2 = Checkpoint(path="asset:smollm2-135m", head="causal_lm")
MINILM = Checkpoint(path="asset:minilm-l6", head="encoder")
State = dict[str, Any]
Line = tuple[str, str, bool]
OV, ORT = OpenVino(), OnnxRuntime()


def rounded(bits: int, **more: Any) -> RoundToNearest:
    return RoundToNearest(bits=bits, embeddings=8 if bits < 16 else 16, predicts=False, **more)  # type: ignore[arg-type]


def gptq() -> Gptq:
    return Gptq(bits=4, embeddings=8, zero="whole", predicts=False)


def pruner(ratio: float) -> Structured:
    return Structured(ratio=ratio, criterion=Activation(), multiple_of=64)


@dataclass(frozen=True)
class Entry:
    """A candidate by its name; ``own``: that of the same runtime's dense fp32, ``None`` for torch."""

    name: str
    candidate: Candidate
    own: str | None = None


def entries(workload: Workload, table: Sequence[tuple[str, Runtime, Quantizer, float, str | None]]) -> list[Entry]:
    return [
        Entry(name, Candidate(pruner(ratio), quantizer, workload, Off(), runtime), own)
        for name, runtime, quantizer, ratio, own in table
    ]


DECODERS = entries(
    Generation(prompt_tokens=128, new_tokens=9),
    [
        ("torch bf16", Torch(), rounded(16), 0.0, None),
        ("torch fp32", Torch(), rounded(32), 0.0, None),
        ("torch 8 bits", Torch(), rounded(8), 0.0, None),
        ("torch 4 bits", Torch(), gptq(), 0.0, None),
        ("OpenVINO fp32", OV, rounded(32), 0.0, "OpenVINO fp32"),
        ("OpenVINO 16 bits", OV, rounded(16), 0.0, "OpenVINO fp32"),
        ("OpenVINO 8 bits", OV, rounded(8), 0.0, "OpenVINO fp32"),
        ("OpenVINO 8 bits, weights only", OV, rounded(8, scheme="weight_only"), 0.0, "OpenVINO fp32"),
        ("OpenVINO 4 bits", OV, gptq(), 0.0, "OpenVINO fp32"),
        ("ONNX Runtime fp32", ORT, rounded(32), 0.0, "ONNX Runtime fp32"),
        ("ONNX Runtime 8 bits", ORT, rounded(8), 0.0, "ONNX Runtime fp32"),
        ("ONNX Runtime 4 bits", ORT, gptq(), 0.0, "ONNX Runtime fp32"),
        ("CTranslate2 fp32", CTranslate2(), rounded(32), 0.0, "CTranslate2 fp32"),
        ("CTranslate2 8 bits", CTranslate2(), rounded(8), 0.0, "CTranslate2 fp32"),
        ("torch bf16, 25 % pruned", Torch(), rounded(16), 0.25, None),
        ("torch fp32, 25 % pruned", Torch(), rounded(32), 0.25, None),
        ("OpenVINO fp32, 25 % pruned", OV, rounded(32), 0.25, "OpenVINO fp32"),
        ("OpenVINO 8 bits, 25 % pruned", OV, rounded(8), 0.25, "OpenVINO fp32"),
        ("ONNX Runtime fp32, 25 % pruned", ORT, rounded(32), 0.25, "ONNX Runtime fp32"),
        ("ONNX Runtime 8 bits, 25 % pruned", ORT, rounded(8), 0.25, "ONNX Runtime fp32"),
    ],
)
STATIC = OpenVino(activations="static")
ENCODERS = entries(
    Encoding(tokens=64),
    [
        ("torch bf16", Torch(), rounded(16), 0.0, None),
        ("torch fp32", Torch(), rounded(32), 0.0, None),
        ("torch 8 bits", Torch(), rounded(8), 0.0, None),
        ("OpenVINO fp32", OV, rounded(32), 0.0, "OpenVINO fp32"),
        ("OpenVINO 16 bits", OV, rounded(16), 0.0, "OpenVINO fp32"),
        ("OpenVINO 8 bits", OV, rounded(8), 0.0, "OpenVINO fp32"),
        ("OpenVINO 8 bits, static scales", STATIC, rounded(8), 0.0, "OpenVINO fp32"),
        ("OpenVINO 4 bits", OV, gptq(), 0.0, "OpenVINO fp32"),
        ("ONNX Runtime fp32", ORT, rounded(32), 0.0, "ONNX Runtime fp32"),
        ("ONNX Runtime 8 bits", ORT, rounded(8), 0.0, "ONNX Runtime fp32"),
        ("ONNX Runtime 8 bits, by batch", OnnxRuntime(activations="batch"), rounded(8), 0.0, "ONNX Runtime fp32"),
        ("LiteRT fp32", LiteRt(), rounded(32), 0.0, "LiteRT fp32"),
        ("LiteRT 8 bits", LiteRt(), rounded(8), 0.0, "LiteRT fp32"),
        ("torch fp32, 25 % pruned", Torch(), rounded(32), 0.25, None),
        ("OpenVINO fp32, 25 % pruned", OV, rounded(32), 0.25, "OpenVINO fp32"),
        ("OpenVINO 8 bits, 25 % pruned", OV, rounded(8), 0.25, "OpenVINO fp32"),
        ("ONNX Runtime fp32, 25 % pruned", ORT, rounded(32), 0.25, "ONNX Runtime fp32"),
        ("LiteRT fp32, 25 % pruned", LiteRt(), rounded(32), 0.25, "LiteRT fp32"),
        ("LiteRT 8 bits, 25 % pruned", LiteRt(), rounded(8), 0.25, "LiteRT fp32"),
    ],
)


LONG_ONLY = (
    "CTranslate2",
    "OpenVINO 16 bits",
    "weights only",
    "by batch",
    "torch 8 bits",
    "LiteRT fp32, 25",
    "LiteRT 8 bits, 25",
)
"""What the short form leaves out: nothing that is asked for."""


def chosen(listed: Sequence[Entry], short: bool) -> list[Entry]:
    return [entry for entry in listed if not (short and any(part in entry.name for part in LONG_ONLY))]


def evaluator(model: Checkpoint, home: Path, short: bool, documents: int | None = None, threads: int = 1) -> Evaluator:
    task: Any = (
        LanguageModeling(
            corpus=XSum(), documents=documents or (5 if short else 24), tokens=256, calibration_documents=12
        )
        if model.head == "causal_lm"
        else Retrieval(corpus=XSum(), pool=200 if short else 600, tokens=64)
    )
    baseline = (DECODERS if model.head == "causal_lm" else ENCODERS)[0].candidate
    cache = Cache(folder=str(home / "cache"), max_bytes=20e9)
    return Evaluator(Problem(model, task, Cpu(threads=threads), Interleaved(), baseline, cache))


# ---- speed


class Laps:
    """Seconds of every lap by phase: of the CPU, or of another ``clock``."""

    def __init__(self, clock: Callable[[], float] = cpu_seconds) -> None:
        self.seconds: dict[Phase, list[float]] = {}
        self._clock = clock

    def start(self, laps: int) -> None:
        self._last = self._clock()

    def end_phase(self, phase: Phase, held: object = None) -> None:
        now = self._clock()
        self.seconds.setdefault(phase, []).append(now - self._last)
        self._last = now


def speeds(
    runners: Mapping[str, Runner], workload: Workload, rounds: int, clock: Callable[[], float] = cpu_seconds
) -> dict[str, dict[str, list[float]]]:
    """Seconds by name and phase, one per round (of a phase's laps the median), the order shuffled; a warm-up aside."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in runners}
    order, generator = list(runners), random.Random(0)
    for turn in range(rounds + 1):
        generator.shuffle(order)
        for name in order:
            watch = Laps(clock)
            workload.run(runners[name], watch)
            if turn:
                for phase, laps in watch.seconds.items():
                    found[name].setdefault(phase, []).append(median(laps))
    return found


def ratio(seconds: Mapping[str, Mapping[str, Sequence[float]]], name: str, other: str, phase: str) -> float:
    return median(theirs / own for theirs, own in zip(seconds[other][phase], seconds[name][phase]))


# ---- parts


def decoders(short: bool, home: Path) -> State:
    return of_kind(
        evaluator(SMOLLM2, home, short),
        chosen(DECODERS, short),
        short,
        batches=(1,) if short else (1, 8),
        rounds=(5,) if short else (15, 6),
    )


def encoders(short: bool, home: Path) -> State:
    return of_kind(
        evaluator(MINILM, home, short),
        chosen(ENCODERS, short),
        short,
        batches=(1, 32),
        rounds=(15, 5) if short else (60, 20),
    )


def of_kind(
    ev: Evaluator, listed: Sequence[Entry], short: bool, batches: Sequence[int], rounds: Sequence[int]
) -> State:
    rows: dict[str, State] = {}
    runners: dict[str, Runner] = {}
    for entry in listed:
        began = time.perf_counter()
        runner = ev.runner(entry.candidate)
        runners[entry.name] = runner
        rows[entry.name] = {**described(ev, entry, runner), "made_seconds": time.perf_counter() - began}
        if not short:
            rows[entry.name] |= remembered(ev, entry, runner)
        print(f"  {entry.name}: ready after {rows[entry.name]['made_seconds']:.0f} s", flush=True)
    if ev.problem.model.head == "causal_lm":
        score_decoders(ev, runners, rows)
    else:
        score_encoders(ev, runners, rows)
    for batch, count in zip(batches, rounds):
        workload = replace(listed[0].candidate.workload, batch_size=batch)  # type: ignore[type-var]
        taken = speeds(runners, workload, count)
        for entry in listed:
            for phase, own in taken[entry.name].items():
                row = rows[entry.name]
                row[f"{phase} {batch} seconds"] = median(own)
                row[f"{phase} {batch}"] = ratio(taken, entry.name, "torch bf16", phase)
                if entry.own is not None:
                    row[f"{phase} {batch} own"] = ratio(taken, entry.name, entry.own, phase)
    compared = ev.problem.model.head == "causal_lm" and not short
    return {"rows": rows, **(own_quality(ev, home_of(ev)) if compared else {})}


def home_of(ev: Evaluator) -> Path:
    assert ev.problem.cache is not None
    return Path(ev.problem.cache.folder).parent


def described(ev: Evaluator, entry: Entry, runner: Runner) -> State:
    weights = runner.weights(1)
    return {"weight_bytes": weights["weight_bytes"], "conversion_seconds": weights.get("conversion_seconds", 0.0)}


def remembered(ev: Evaluator, entry: Entry, runner: Runner) -> State:
    """Peak bytes of the first workload: an engine's resident set, torch's allocations."""
    entry.candidate.workload.run(runner, Laps())
    memory = runner.memory(entry.candidate.workload, ev.problem.device)
    return {"peak_memory": runner.stored_bytes + memory.peak, "resting": memory.extra.get("runtime_bytes", 0.0)}


def score_decoders(ev: Evaluator, runners: Mapping[str, Runner], rows: dict[str, State]) -> None:
    ids = torch.randint(0, 49152, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for name, runner in runners.items():
            score = ev.problem.task.evaluate(runner)
            rows[name] |= {"accuracy": score.accuracy, "perplexity": score.extra["perplexity"]}
            reference = runners[fp32_of(name)] if "fp32" in name and "torch" not in name else None
            if reference is not None:
                rows[name]["difference"] = float((runner.logits(ids) - reference.logits(ids)).abs().max())


def score_encoders(ev: Evaluator, runners: Mapping[str, Runner], rows: dict[str, State]) -> None:
    texts = [document.text for document in XSum().documents()[:192]]
    vectors: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for name, runner in runners.items():
            vectors[name] = torch.cat([embed(runner, texts[at : at + 32], 64) for at in range(0, len(texts), 32)])
            rows[name]["accuracy"] = ev.problem.task.evaluate(runner).accuracy
    for name, found in vectors.items():
        cosines = (found * vectors["torch fp32"]).sum(dim=1)
        rows[name] |= {"cosine": float(cosines.mean()), "least cosine": float(cosines.min())}
        if "fp32" in name and "torch" not in name:
            rows[name]["difference"] = float((found - vectors[fp32_of(name)]).abs().max())


def fp32_of(name: str) -> str:
    """What an fp32 engine is compared with: torch in fp32, of the same pruned model."""
    return "torch fp32, 25 % pruned" if "pruned" in name else "torch fp32"


def own_quality(ev: Evaluator, home: Path) -> State:
    """Perplexity of 4 bits as each runtime rounds by itself, from the same dense model."""
    found = {}
    for name, runtime in (("OpenVINO", OV), ("ONNX Runtime", ORT)):
        dense = ev.runner(Candidate(pruner(0.0), rounded(32), DECODERS[0].candidate.workload, Off(), runtime))
        assert isinstance(dense, EngineRunner)
        with torch.inference_mode():
            score = ev.problem.task.evaluate(own_rounding(dense, home / "own" / name.replace(" ", "_")))
        found[name] = {"accuracy": score.accuracy, "perplexity": score.extra["perplexity"]}
    return {"own rounding": found}


# ---- what is asked


def lines_of(state: State) -> Iterator[Line]:
    if "decoders" in state:
        yield from decoder_lines(state["decoders"])
    if "encoders" in state:
        yield from encoder_lines(state["encoders"]["rows"])


def equal_lines(rows: Mapping[str, State], what: str) -> Iterator[Line]:
    for pruned in (False, True):
        found = {
            name: row["difference"]
            for name, row in rows.items()
            if "difference" in row and ("pruned" in name) == pruned
        }
        worst = max(found, key=lambda name: found[name])
        label = f"{what}, 25 % pruned, every layer its width" if pruned else what
        yield f"{label}: fp32 within 1e-3 of torch fp32", f"{found[worst]:.1e} ({worst})", found[worst] <= 1e-3


def decoder_lines(found: State) -> Iterator[Line]:
    rows: Mapping[str, State] = found["rows"]
    yield from equal_lines(rows, "SmolLM2, logits")
    bf16 = rows["torch bf16"]
    for name in ("OpenVINO 8 bits", "ONNX Runtime 8 bits", "CTranslate2 8 bits"):
        if name not in rows:
            continue
        away = rows[name]["accuracy"] - bf16["accuracy"]
        yield f"{name}: next-token top-1 within 1.5 points of bf16", f"{100 * away:+.2f} points", abs(away) <= 0.015
    own = rows["OpenVINO 8 bits"]
    yield "OpenVINO 8 bits: decode >= 2.2x at batch 1", f"{own['decode 1']:.2f}x", own["decode 1"] >= 2.2
    yield "OpenVINO 8 bits: prefill >= 1.3x at batch 1", f"{own['prefill 1']:.2f}x", own["prefill 1"] >= 1.3
    name = max((name for name in rows if name.endswith("4 bits")), key=lambda name: rows[name]["decode 1"])
    fast = rows[name]["decode 1"]
    yield "some runtime at 4 bits: decode >= 3.5x at batch 1", f"{fast:.2f}x ({name})", fast >= 3.5
    name = max((name for name in rows if name.endswith("8 bits, 25 % pruned")), key=lambda name: rows[name]["decode 1"])
    fast = rows[name]["decode 1"]
    yield "25 % pruned and 8 bits: decode >= 3.2x at batch 1", f"{fast:.2f}x ({name})", fast >= 3.2
    ours = rows["torch 4 bits"]["perplexity"]
    for runtime in ("OpenVINO", "ONNX Runtime"):
        here, theirs = rows[f"{runtime} 4 bits"]["perplexity"], found.get("own rounding", {}).get(runtime)
        asked = f"{runtime} 4 bits: perplexity within 2 % of our GPTQ's in torch ({ours:.2f})"
        gained = f"; by its own rounding {theirs['perplexity']:.2f}" if theirs else ""
        yield asked, f"{here:.2f}{gained}", abs(here / ours - 1) <= 0.02


def encoder_lines(rows: Mapping[str, State]) -> Iterator[Line]:
    yield from equal_lines(rows, "MiniLM, embeddings")
    for batch, least in ((1, 3.0), (32, 1.8)):
        good = {name: row for name, row in rows.items() if row["cosine"] >= 0.995 and "pruned" not in name}
        name = max(good, key=lambda name: good[name][f"encode {batch}"])
        fast = good[name][f"encode {batch}"]
        asked = f"encoder: >= {least}x at batch {batch} with cosine >= .995"
        yield asked, f"{fast:.2f}x ({name}, cosine {good[name]['cosine']:.4f})", fast >= least


PARTS: dict[str, Callable[[bool, Path], State]] = {"encoders": encoders, "decoders": decoders}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="a short form, which writes nothing")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--home", type=Path, default=Path("mlruns"), help="where converted models are kept")
    arguments = parser.parse_args()
    Cpu(threads=1).start()
    stored = OUT.with_suffix(".json")
    state: State = json.loads(stored.read_text()) if stored.is_file() and not arguments.check else {}
    began = time.perf_counter()
    for name in arguments.parts.split(","):
        print(f"{name}:", flush=True)
        state[name] = PARTS[name](arguments.check, arguments.home.absolute())
        state.setdefault("machines", {})[name] = fingerprint(Cpu(threads=1))
    lines = list(lines_of(state))
    if arguments.check:
        minutes = (time.perf_counter() - began) / 60
        lines.append(("the short form takes at most 10 minutes", f"{minutes:.1f} min", minutes <= 10))
    for asked, measured, holds in lines:
        print(f"{'ok    ' if holds else 'BROKEN'} | {asked} | {measured}")
    if not arguments.check:
        from runtimes_page import page

        stored.write_text(json.dumps(state, indent=1) + "\n")
        OUT.with_suffix(".md").write_text(page(state, lines))
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
