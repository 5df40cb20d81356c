"""Ranks are those of a plain loop over all entities, filtered; equal likelihoods share the middle rank."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.link_prediction import LinkPrediction, rank
from tests.objectives.conftest import Tiny

TRIPLES = [("cat", "likes", "fish"), ("dog", "likes", "cat"), ("cat", "chases", "mouse"), ("fish", "fears", "cat")]
TRUE = [("dog", "likes", "bone"), ("cat", "likes", "mouse"), ("mouse", "fears", "cat"), ("big_dog", "fears", "fish")]


def write(file: Path, triples: list[tuple[str, str, str]]) -> str:
    file.write_text("head\trelation\ttail\n" + "".join("\t".join(triple) + "\n" for triple in triples))
    return str(file)


@pytest.fixture
def decoder(tiny: Tiny) -> TorchRunner:
    model = tiny("llama").copy()
    model.module.float()
    return TorchRunner(model)


def task(folder: Path, **settings: Any) -> LinkPrediction:
    return LinkPrediction(
        data=write(folder / "test.tsv", TRIPLES), calibration=write(folder / "train.tsv", TRUE[:2]),
        known=(write(folder / "valid.tsv", TRUE[2:]),), **settings,
    )  # fmt: skip


def plain_ranks(decoder: TorchRunner) -> list[float]:
    """By another way: one sentence at a time in float64, and filtering by hand."""
    module, tokenizer = decoder.module.double(), decoder.tokenizer
    true = {*TRIPLES, *TRUE}
    entities = {each for triple in true for each in (triple[0], triple[2])}

    def likelihood(triple: tuple[str, ...]) -> float:
        ids = [tokenizer.eos_token_id, *tokenizer(" ".join(triple).replace("_", " "))["input_ids"]]
        logs = module(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        return sum(float(logs[place - 1, ids[place]]) for place in range(1, len(ids)))

    ranks = []
    for head, relation, tail in TRIPLES:
        for side in (0, 2):
            right = likelihood((head, relation, tail))
            others = [(each, relation, tail) if side == 0 else (head, relation, each) for each in entities]
            ranks.append(1 + sum(likelihood(each) > right for each in others if each not in true))
    return ranks


def test_ranks_are_those_of_a_plain_loop(decoder: TorchRunner, tmp_path: Path) -> None:
    names, queries = task(tmp_path)._queries()
    found = task(tmp_path).ranks(decoder, queries)
    wanted = plain_ranks(decoder)
    assert found == wanted
    assert len(set(wanted)) > 2
    assert names[:2] == ["test.tsv, line 2, head", "test.tsv, line 2, tail"]
    decoder.module.float()
    for metric, expected in (
        ("mrr", np.mean([1 / each for each in wanted])),
        ("hits@1", np.mean([each <= 1 for each in wanted])),
        ("hits@3", np.mean([each <= 3 for each in wanted])),
    ):
        assert task(tmp_path, metric=metric).evaluate(decoder).accuracy == pytest.approx(expected)


def test_triples_of_the_same_relation_stand_before_a_sentence(decoder: TorchRunner, tmp_path: Path) -> None:
    before = task(tmp_path, shots=1)._before(decoder, {"likes", "chases"})
    texts = {name: "".join(decoder.tokenizer.convert_ids_to_tokens(ids[1:])) for name, ids in before.items()}
    assert texts["likes"] in ("cat likes mouse\n", "dog likes bone\n")
    assert texts["chases"] == ""  # no calibration triple has it
    _, queries = task(tmp_path)._queries()
    shown, plainly = (task(tmp_path, shots=shots).ranks(decoder, queries) for shots in (2, 0))
    assert [each == other for each, other in zip(shown, plainly)] != [True] * len(queries)
    assert shown[4:6] == plainly[4:6]


def test_known_triples_are_no_rivals(tmp_path: Path) -> None:
    _, queries = task(tmp_path)._queries()
    found = [{triple[query.side] for triple in query.sentences()} for query in queries]
    assert "mouse" not in found[1]  # the cat likes it too
    assert "mouse" in found[1 + 2]
    assert all(query.triple[query.side] in entities for query, entities in zip(queries, found))
    assert [len(entities) for entities in found] == [query.candidates for query in queries]


def test_many_triples_are_looked_through_once(tmp_path: Path) -> None:
    names = [f"e{place}" for place in range(3000)]
    rows = "".join(f"{names[place % 3000]}\tr{place % 7}\t{names[place * 31 % 3000]}\n" for place in range(8000))
    (tmp_path / "many.tsv").write_text("head\trelation\ttail\n" + rows)
    made = LinkPrediction(data=str(tmp_path / "many.tsv"))
    began = time.process_time()
    made.require_documents()
    assert time.process_time() - began < 3  # 8 million pairs of a query and an entity took 15


@pytest.mark.parametrize(
    ("values", "middle"),
    [([3.0, 1, 2], 1), ([2.0, 3, 1], 2), ([1.0, 1, 1], 2), ([1.0, 1, 2, 0], 2.5), ([math.nan, 1], math.nan)],
)
def test_equal_likelihoods_share_the_middle_rank(values: list[float], middle: float) -> None:
    assert rank(values[0], values) == pytest.approx(middle, nan_ok=True)


def test_guessing_reaches_what_a_random_order_does(decoder: TorchRunner, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    _, queries = task(tmp_path)._queries()
    tried = [np.mean([1 / (1 + drawn.integers(query.candidates)) for query in queries]) for _ in range(4000)]
    assert task(tmp_path).evaluate(decoder).chance == pytest.approx(np.mean(tried), abs=0.01)


def test_calibration_rows_are_sentences(decoder: TorchRunner, tmp_path: Path) -> None:
    (batches,) = task(tmp_path).calibration(decoder.model).values()
    texts = ["".join(decoder.tokenizer.convert_ids_to_tokens(row)) for batch in batches for row in batch]
    assert sorted(texts) == ["cat likes mouse", "dog likes bone"]


def test_sentences_that_are_cut_are_counted(decoder: TorchRunner, tmp_path: Path) -> None:
    lengths = [len(" ".join(triple).replace("_", " ")) for triple in {*TRIPLES, *TRUE}]  # a token a letter
    cut = sum(length > min(lengths) for length in lengths)
    assert 0 < cut < len(lengths)
    made = task(tmp_path, tokens=min(lengths))
    assert made.excerpts(decoder.model).remarks == (
        f"task.tokens: {cut} of {len(lengths)} known sentences are cut at their end to {min(lengths)} tokens",
    )
    assert not task(tmp_path).excerpts(decoder.model).remarks


def test_a_template_over_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"task\.doc_to_text: .*'object' is undefined.*its columns: head, relation, tail"
    ):
        task(tmp_path, doc_to_text="{{head}} {{object}}").require_documents()
