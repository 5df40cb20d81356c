"""Queries find what a plain loop over all documents finds; rows name their documents by text or by id."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.embedding import embed
from objectives.tasks.information_retrieval import InformationRetrieval
from objectives.tasks.overlap import require_disjoint
from objectives.tasks.ranking import RankMetric
from tests.objectives.conftest import Tiny

Rows = list[dict[str, Any]]
TEXTS = ["a red car", "one dog barks loudly", "the sea", "snow in the mountains", "ice", "a b c d", "birds", "a walk"]
PAIRS: Rows = [{"query": f"{text[: 3 + place % 4]} {place}", "text": text} for place, text in enumerate(TEXTS)]
FIRST: Rows = [{"query": "calibrates", "text": "some text"}, {"query": "this too", "text": "another"}]
POOL: Rows = [{"id": place, "text": text} for place, text in enumerate(TEXTS)]
ASKED: Rows = [
    {"query": "car", "relevant": 0}, {"query": "water", "relevant": [2, "4"]}, {"query": "winter", "relevant": [3, 4]},
    {"query": "letters", "relevant": ["5"]}, {"query": "water", "relevant": 6},
]  # fmt: skip


def write(file: Path, rows: Rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def encoder(tiny: Tiny) -> TorchRunner:
    model = tiny("bert").copy()
    model.module.float()
    return TorchRunner(model)


def task(folder: Path, rows: Rows = PAIRS, first: Rows = FIRST, **settings: Any) -> InformationRetrieval:
    files = {"data": write(folder / "a.jsonl", rows), "calibration": write(folder / "b.jsonl", first)}
    return InformationRetrieval(**{**files, "tokens": 24, "batch_rows": 3, **settings})


def by_ids(folder: Path, rows: Rows = ASKED, **settings: Any) -> InformationRetrieval:
    first = [{"query": "calibrates", "relevant": 7}]
    return task(folder, rows, first, documents=write(folder / "pool.jsonl", POOL), **settings)


def found(encoder: TorchRunner, query: str, texts: list[str] = TEXTS) -> list[float]:
    """The similarities of all texts, by another way: one text at a time."""
    return [float(embed(encoder, [query], 24)[0] @ embed(encoder, [text], 24)[0]) for text in texts]


def plainly(metric: str, similarities: list[float], relevant: set[int]) -> float:
    order = sorted(range(len(similarities)), key=lambda place: -similarities[place])
    if metric == "ndcg@10":
        return float(ndcg_score([[float(place in relevant) for place in range(len(order))]], [similarities], k=10))
    rank = 1 + min(order.index(place) for place in relevant)
    return 1 / rank if metric == "mrr" else float(rank <= int(metric.partition("@")[2]))


@pytest.mark.parametrize("metric", get_args(RankMetric))
def test_a_query_finds_its_document_where_a_plain_loop_does(encoder: TorchRunner, tmp_path: Path, metric: Any) -> None:
    wanted = [plainly(metric, found(encoder, row["query"]), {place}) for place, row in enumerate(PAIRS)]
    made = task(tmp_path, metric=metric)
    score = made.evaluate(encoder)
    assert score.examples == pytest.approx(wanted, abs=1e-6)
    assert score.accuracy == pytest.approx(np.mean(wanted), abs=1e-6)
    assert score.ids[:2] == ("a.jsonl, line 1", "a.jsonl, line 2")
    (part,) = made.parts(encoder, [5, 0])
    assert part.examples == (score.examples[5], score.examples[0])
    assert part.chance == score.chance
    assert score.replicates == ()


@pytest.mark.parametrize("metric", ["accuracy@1", "mrr", "ndcg@10"])
def test_documents_of_a_second_file_are_named_by_ids_and_a_query_may_have_several(
    encoder: TorchRunner, tmp_path: Path, metric: Any
) -> None:
    relevant = {"car": {0}, "water": {2, 4, 6}, "winter": {3, 4}, "letters": {5}}
    wanted = [plainly(metric, found(encoder, query), right) for query, right in relevant.items()]
    score = by_ids(tmp_path, metric=metric).evaluate(encoder)
    assert score.examples == pytest.approx(wanted, abs=1e-6)
    assert score.ids == tuple(f"a.jsonl, line {line}" for line in (1, 2, 3, 4))


def test_templates_put_prefixes_before_both(encoder: TorchRunner, tmp_path: Path) -> None:
    made = task(tmp_path, doc_to_query="query: {{query}}", doc_to_text="passage: {{text}}", metric="mrr")
    texts = [f"passage: {text}" for text in TEXTS]
    wanted = [
        plainly("mrr", found(encoder, f"query: {row['query']}", texts), {place}) for place, row in enumerate(PAIRS)
    ]
    assert made.evaluate(encoder).examples == pytest.approx(wanted, abs=1e-6)


def test_all_documents_can_be_found_whichever_queries_are_scored(tmp_path: Path) -> None:
    documents, queries, _ = task(tmp_path, calibration=None, calibration_rows=3, limit=2)._read()
    assert documents == tuple(TEXTS)
    assert len(queries) == 2


def test_the_texts_that_are_read_can_be_told(tmp_path: Path) -> None:
    assert task(tmp_path).texts() == [*((text,) for text in TEXTS), *((row["query"],) for row in PAIRS)]


def test_documents_of_equal_text_are_one(tmp_path: Path) -> None:
    rows = [*PAIRS, {"query": "cars", "text": TEXTS[0]}]
    documents, queries, _ = task(tmp_path, rows)._read()
    assert documents == tuple(TEXTS)
    assert queries[-1].relevant == queries[0].relevant == (0,)


def test_a_query_that_calibrates_is_not_scored_and_said(encoder: TorchRunner, tmp_path: Path) -> None:
    made = task(tmp_path, [*PAIRS, {"query": " calibrates", "text": "a red car"}])
    assert len(made.evaluate(encoder).examples) == len(PAIRS)
    assert require_disjoint(made, encoder.model) == (
        "task: 1 rows are not scored, as their text calibrates: scored a.jsonl, line 9 = calibration b.jsonl, line 1"
    )
    alone = task(tmp_path, [{"query": "calibrates", "text": each} for each in ("one", "two")])
    with pytest.raises(DataError, match=r"task\.query: all 1 scored queries of .* calibrate too; take them out"):
        alone.require_documents()


@pytest.mark.parametrize(
    ("make", "texts"),
    [(task, ["calibrates", "some text", "this too", "another"]), (by_ids, ["calibrates", TEXTS[7]])],
)
def test_queries_and_their_documents_calibrate_without_padding(
    encoder: TorchRunner, tmp_path: Path, make: Any, texts: list[str]
) -> None:
    rows = [row for batch in make(tmp_path).calibration(encoder.model)["task"] for row in batch.tolist()]
    assert sorted(rows) == sorted(encoder.tokenizer(text).input_ids for text in texts)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"query": "x", "relevant": [1, 99]}], r"line 1 has the relevant document '99', which .*pool\.jsonl lacks"),
        ([{"query": "x", "relevant": []}], "line 1 has no relevant document"),
        ([{"query": "x", "right": 1}], r"task\.relevant: a\.jsonl has no column 'relevant', it has query, right"),
    ],
)
def test_what_no_document_answers_is_told_with_its_line(tmp_path: Path, rows: Rows, said: str) -> None:
    with pytest.raises(DataError, match=said):
        by_ids(tmp_path, rows).require_documents()


def test_two_documents_of_one_id_are_told(tmp_path: Path) -> None:
    made = by_ids(tmp_path)
    write(tmp_path / "pool.jsonl", [*POOL, {"id": "3", "text": "something else"}])
    said = r"task\.document_id: 1 of 9 rows are wrong: pool\.jsonl, line 9 has the 'id' '3' of line 4 again"
    with pytest.raises(DataError, match=said):
        made.require_documents()


def test_a_single_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.text: .*a\.jsonl holds one document, which every query finds"):
        task(tmp_path, [{"query": str(place), "text": "one"} for place in range(3)]).require_documents()


def test_texts_that_are_cut_are_counted(encoder: TorchRunner, tmp_path: Path) -> None:
    assert list(task(tmp_path).excerpts(encoder.model).remarks) == []
    (remark,) = task(tmp_path, tokens=12).excerpts(encoder.model).remarks
    assert remark == "task.tokens: 2 of 16 rows are cut at their end to 12 tokens"


def test_guessing_is_known(encoder: TorchRunner, tmp_path: Path) -> None:
    assert task(tmp_path).evaluate(encoder).chance == pytest.approx(1 / 8)
    assert by_ids(tmp_path).evaluate(encoder).chance == pytest.approx((1 + 3 + 2 + 1) / 4 / 8)


def test_a_model_that_went_mad_has_no_score(encoder: TorchRunner, tmp_path: Path) -> None:
    with torch.no_grad():
        next(encoder.module.parameters()).fill_(math.nan)
    assert math.isnan(task(tmp_path).evaluate(encoder).accuracy)


def test_evaluating_looks_at_the_files_once(
    encoder: TorchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bool] = []
    plain = InformationRetrieval._read
    monkeypatch.setattr(InformationRetrieval, "_read", lambda self: read.append(True) or plain(self))
    score = task(tmp_path).evaluate(encoder)
    assert len(score.examples) == len(PAIRS)
    assert read == [True]
