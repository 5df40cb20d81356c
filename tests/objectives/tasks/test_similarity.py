"""The score of pairs is the correlation of their cosines with the labels, whatever the columns are called."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.embedding import embed
from objectives.tasks.similarity import Similarity
from tests.objectives.conftest import Tiny

ROWS = [
    ("a red car", "a red bus", 4.0), ("a dog", "one dog barks loudly", 3.5), ("two birds", "sea", 0.5),
    ("the sea", "the sea", 5), ("snow", "a long walk in the snow", 3.5), ("ice", "fire", 0), ("x", "a b c d", 1),
]  # fmt: skip


def write(file: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...] = ("text", "text_b", "label")) -> str:
    file.write_text("".join(json.dumps(dict(zip(columns, row))) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def encoder(tiny: Tiny) -> TorchRunner:
    model = tiny("bert").copy()
    model.module.float()
    return TorchRunner(model)


def task(folder: Path, **settings: Any) -> Similarity:
    first = write(folder / "b.jsonl", [("calibrates", "so", 1), ("this too", "yes", 2)])
    return Similarity(
        **{"data": write(folder / "a.jsonl", ROWS), "calibration": first, "tokens": 24, "batch_rows": 3, **settings}
    )


def cosines(encoder: TorchRunner, pairs: list[tuple[str, str]], tokens: int = 24) -> list[float]:
    """By another way: one pair at a time."""
    return [float(embed(encoder, [one], tokens)[0] @ embed(encoder, [other], tokens)[0]) for one, other in pairs]


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
def test_the_score_is_scipys_correlation_of_cosines_and_labels(
    encoder: TorchRunner, tmp_path: Path, metric: Any
) -> None:
    wanted = cosines(encoder, [(one, other) for one, other, _ in ROWS])
    score = task(tmp_path, metric=metric).evaluate(encoder)
    of: Any = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[metric]
    assert score.examples == pytest.approx(wanted, abs=1e-6)
    assert score.extra[metric] == pytest.approx(of(wanted, [row[2] for row in ROWS]).statistic, abs=1e-5)
    assert score.accuracy == max(0.0, score.extra[metric])
    assert score.ids[:2] == ("a.jsonl, line 1", "a.jsonl, line 2")
    assert len(score.replicates) == 1000


def test_some_pairs_are_scored_in_the_order_asked_for_and_in_one_part(encoder: TorchRunner, tmp_path: Path) -> None:
    (part,) = task(tmp_path).parts(encoder, [4, 0, 2])
    whole = task(tmp_path).evaluate(encoder)
    assert part.examples == pytest.approx([whole.examples[index] for index in (4, 0, 2)], abs=1e-6)
    assert part.ids == tuple(whole.ids[index] for index in (4, 0, 2))


def test_columns_and_templates_are_chosen_by_name_and_labels_may_be_written_as_text(
    encoder: TorchRunner, tmp_path: Path
) -> None:
    file = tmp_path / "named.csv"
    file.write_text("one,two,score\n" + "".join(f"{one},{other},{label}\n" for one, other, label in ROWS))
    named = task(
        tmp_path, data=str(file), calibration=None, calibration_rows=1, text="one", text_b="two", label="score"
    )
    assert [pair.label for pair in named._pairs(named.divided().scored)] == [
        float(label) for one, other, label in ROWS if (one, other) != _calibrating(named)
    ]
    made = task(tmp_path, doc_to_text="query: {{text}}", doc_to_text_b="passage: {{text_b}}")
    wanted = cosines(encoder, [(f"query: {one}", f"passage: {other}") for one, other, _ in ROWS])
    assert made.evaluate(encoder).examples == pytest.approx(wanted, abs=1e-6)


def _calibrating(task: Similarity) -> tuple[str, str]:
    ((pair),) = task._pairs(task.divided().calibration)
    return pair.text, pair.other


def test_the_texts_that_are_read_can_be_told(tmp_path: Path) -> None:
    assert task(tmp_path).texts()[:3] == [("a red car",), ("a red bus",), ("a dog",)]


def test_both_texts_calibrate_without_padding(encoder: TorchRunner, tmp_path: Path) -> None:
    rows = [row for batch in task(tmp_path).calibration(encoder.model)["task"] for row in batch.tolist()]
    assert sorted(rows) == sorted(encoder.tokenizer(text).input_ids for text in ("calibrates", "so", "this too", "yes"))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("alike", r"task\.label: 1 of 8 rows are wrong: a\.jsonl, line 8 has 'alike' for 'label', not a number"),
        (math.nan, "line 8 has no 'label'"),
        (math.inf, "line 8 has 'inf' for 'label', not a number"),
        (None, "line 8 has no 'label'"),
    ],
)
def test_a_label_that_is_no_number_is_told_with_its_line(tmp_path: Path, label: Any, said: str) -> None:
    made = task(tmp_path)
    write(tmp_path / "a.jsonl", [*ROWS, ("one", "other", label)])
    with pytest.raises(DataError, match=said):
        made.require_documents()


def test_labels_that_are_all_equal_are_refused(tmp_path: Path) -> None:
    made = task(tmp_path)
    write(tmp_path / "a.jsonl", [(one, other, 3) for one, other, _ in ROWS])
    with pytest.raises(DataError, match=r"task\.label: all 7 scored rows of .* have 3 for 'label'"):
        made.require_documents()


def test_texts_that_are_cut_are_counted(encoder: TorchRunner, tmp_path: Path) -> None:
    assert list(task(tmp_path).excerpts(encoder.model).remarks) == []
    (remark,) = task(tmp_path, tokens=12).excerpts(encoder.model).remarks
    assert remark == "task.tokens: 2 of 14 rows are cut at their end to 12 tokens"


def test_a_model_that_went_mad_has_no_score(encoder: TorchRunner, tmp_path: Path) -> None:
    with torch.no_grad():
        next(encoder.module.parameters()).fill_(math.nan)
    assert math.isnan(task(tmp_path).evaluate(encoder).accuracy)
