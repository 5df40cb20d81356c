"""Every token but a document's first is scored once, and all figures are those of a plain loop in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.errors import DataError
from objectives.evaluation.floor_verdict import contest
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.paired import follows_from_examples, paired_difference
from objectives.tasks.text import Text, windows
from tests.objectives.conftest import Tiny

LENGTHS = (1, 2, 9, 10, 11, 40, 23, 5)


@pytest.fixture
def data(tmp_path: Path) -> str:
    letters = np.random.default_rng(0)
    rows = [{"text": "".join(letters.choice(list("abcdefgh .,"), length))} for length in (*LENGTHS, 64, 64, 50)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[: len(LENGTHS)]))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[len(LENGTHS) :]))
    return str(tmp_path)


def text(data: str, **settings: Any) -> Text:
    usual = {"tokens": 10, "stride": 4, "calibration_tokens": 30, "batch_rows": 3}
    return Text(data=f"{data}/a.jsonl", calibration=f"{data}/b.jsonl", **{**usual, **settings})


@pytest.fixture
def decoder(tiny: Tiny) -> TorchRunner:
    model = tiny("llama").copy()
    model.module.float()
    return TorchRunner(model)


@given(length=st.integers(0, 200), tokens=st.integers(2, 40), data=st.data())
def test_windows_score_every_token_but_the_first_once_with_enough_context(length: int, tokens: int, data: Any) -> None:
    stride = data.draw(st.integers(1, tokens - 1))
    found = windows(range(length), tokens, stride)
    scored = [token for window in found for token in window.ids[window.context :]]
    assert scored == list(range(1, length))
    assert all(len(window.ids) <= tokens and window.context >= 1 for window in found)
    assert all(window.context >= tokens - stride for window in found[1:])


def plain_loop(decoder: TorchRunner, data: str, tokens: int, stride: int) -> tuple[float, float]:
    """Accuracy and perplexity by another way: for every token the longest context that it is promised, alone."""
    module = decoder.module.double()
    hits, losses = [], []
    for line in Path(f"{data}/a.jsonl").read_text().splitlines():
        ids = decoder.tokenizer(json.loads(line)["text"])["input_ids"]
        for place in range(1, len(ids)):
            end = tokens if place < tokens else tokens + math.ceil((place + 1 - tokens) / stride) * stride
            first = max(0, min(end, len(ids)) - tokens)
            logits = module(input_ids=torch.tensor([ids[first:place]])).logits[0, -1]
            hits.append(float(logits.argmax() == ids[place]))
            losses.append(float(-logits.log_softmax(dim=0)[ids[place]]))
    return float(np.mean(hits)), math.exp(float(np.mean(losses)))


def test_accuracy_and_perplexity_are_those_of_a_plain_loop(decoder: TorchRunner, data: str) -> None:
    score = text(data).evaluate(decoder)
    inverse = text(data, metric="inverse_perplexity").evaluate(decoder)
    accuracy, perplexity = plain_loop(decoder, data, tokens=10, stride=4)
    assert score.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert score.extra["perplexity"] == pytest.approx(perplexity, rel=1e-4)
    assert inverse.accuracy == pytest.approx(1 / perplexity, rel=1e-4)
    assert len(score.examples) == len(LENGTHS) - 1  # a text of one token has none to predict
    for each in (score, inverse):
        assert follows_from_examples(each)
        assert contest(each, each.accuracy * 0.9, 0.05) is not None
        assert paired_difference(each, each) is not None


def test_parts_in_any_order_are_the_whole(decoder: TorchRunner, data: str) -> None:
    task = text(data)
    whole = task.evaluate(decoder)
    parts = list(task.parts(decoder, [6, 2, 0, 5, 1, 3, 4]))
    by_name = {name: value for part in parts for name, value in zip(part.ids, part.examples)}
    assert [by_name[name] for name in whole.ids] == pytest.approx(whole.examples, abs=1e-6)
    assert whole.ids[0] == "a.jsonl, line 2"


def test_calibration_rows_are_full_and_come_from_the_other_file(decoder: TorchRunner, data: str) -> None:
    (batches,) = text(data).calibration(decoder.model).values()
    assert [tuple(batch.shape) for batch in batches] == [(3, 30), (2, 30)]
    joined = "".join(json.loads(line)["text"] for line in Path(f"{data}/b.jsonl").read_text().splitlines())
    ids = decoder.tokenizer(joined)["input_ids"]
    assert torch.cat(list(batches)).flatten().tolist() == ids[:150]


def test_a_txt_of_its_own_is_divided_and_that_is_said(tiny: Tiny, tmp_path: Path) -> None:
    paragraphs = [" ".join(f"word{part}-{word}" for word in range(450)) for part in range(6)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    task = Text(data=str(tmp_path / "a.txt"), calibration_rows=2)
    assert "2 rows of" in task.remarks()[0]
    assert len(task.excerpts(tiny("llama")).scored) == 4
    with pytest.raises(DataError, match=r"task\.calibration_tokens: the calibration texts have"):
        Text(data=str(tmp_path / "a.txt"), calibration_tokens=10**6).calibration(tiny("llama"))


def test_texts_without_a_token_to_predict_are_counted(decoder: TorchRunner, data: str, tmp_path: Path) -> None:
    rows = ["a", "abc", "b", "abcd"]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in rows))
    made = Text(data=f"{tmp_path}/c.jsonl", calibration=f"{data}/b.jsonl", calibration_tokens=30)
    assert made.excerpts(decoder.model).remarks == (
        "task.text: 2 of 4 texts are not scored, as they have fewer than two tokens",
    )
    assert len(made.evaluate(decoder).examples) == 2
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"^task\.text: none of the 1 texts has two tokens"):
        made.excerpts(decoder.model)


def test_a_hopeless_model_has_a_score_that_says_so(decoder: TorchRunner, data: str) -> None:
    decoder.module.model.norm.weight.fill_(math.nan)
    assert math.isnan(text(data).evaluate(decoder).accuracy)


def test_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="stride must be < tokens=8, got 8"):
        Text(data="a.txt", tokens=8, stride=8)
