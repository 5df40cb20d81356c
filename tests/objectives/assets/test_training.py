"""Batches hold rows of like length, every row once a pass; a training depends on its seed alone."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from objectives.assets import training
from objectives.assets.asset import AssetError
from objectives.assets.training import Features, Schedule, answers, own_torch, padded, shuffled, train_

SCHEDULE = Schedule(passes=2, tokens=64, rate=1e-2)


def rows(number: int, written: bool = False) -> list[Features]:
    """Rows of 1 to 20 tokens, whose class is whether their first token is high."""
    draw = torch.Generator().manual_seed(0)
    made: list[Features] = []
    for _ in range(number):
        length = int(torch.randint(1, 21, (1,), generator=draw))
        ids = torch.randint(1, 30, (length,), generator=draw).tolist()
        made.append({"input_ids": ids, "labels": ids[::2] if written else int(ids[0] > 15)})
    return made


def classifier() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=30, **sizes))


@pytest.mark.parametrize("written", [False, True])
def test_a_pass_reads_every_row_once_and_no_batch_is_too_wide(written: bool) -> None:
    some = rows(100, written)
    batches = shuffled(some, SCHEDULE, 0)
    assert sorted(place for batch in batches for place in batch) == list(range(100))
    for batch in batches:
        tensors = padded([some[place] for place in batch], {})
        tokens = sum(tensors[name].numel() for name in ("input_ids", "labels") if tensors[name].ndim == 2)
        assert tokens <= 64
    assert batches == shuffled(some, SCHEDULE, 0)
    assert batches != shuffled(some, SCHEDULE, 1)


def test_the_first_pass_may_go_from_short_rows_to_long_ones() -> None:
    some = rows(100)
    schedule = Schedule(passes=2, tokens=64, rate=1e-2, short_first=True)
    longest = [max(len(some[place]["input_ids"]) for place in batch) for batch in shuffled(some, schedule, 0)]
    rounded = [-(-length // 4) for length in longest]
    assert rounded == sorted(rounded)
    assert rounded[0] < rounded[-1]
    assert shuffled(some, schedule, 1) == shuffled(some, SCHEDULE, 1)


def test_a_row_that_is_longer_than_a_batch_is_a_batch_by_itself() -> None:
    long = {"input_ids": [1] * 200, "labels": 0}
    assert sorted(map(len, shuffled([long, *rows(3), long], SCHEDULE, 0)))[-3:] == [1, 1, 3]


def test_lists_are_padded_and_numbers_are_stacked() -> None:
    batch = padded(
        [{"input_ids": [5, 6], "labels": [7], "end": 1}, {"input_ids": [8], "labels": [9, 9], "end": 0}],
        {"labels": -100},
    )
    assert batch["input_ids"].tolist() == [[5, 6, 0, 0], [8, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[7, -100, -100, -100], [9, 9, -100, -100]]
    assert batch["end"].tolist() == [1, 0]


def test_a_training_learns_is_repeatable_and_leaves_torch_alone() -> None:
    some, weights = rows(200), []
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for _ in range(2):
        with own_torch(seed=3):
            model = classifier()
            train_(model, some, Schedule(passes=12, tokens=256, rate=1e-2), {}, lambda line: None)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    right = [int(out["logits"].argmax()) == some[number]["labels"] for number, out in answers(model, some, 256, {})]
    assert len(right) == 200
    assert sum(right) / 200 > 0.9  # the commonest class has about half


def test_answers_are_those_of_the_rows_one_by_one() -> None:
    some = rows(30)
    with own_torch(seed=0):
        model = classifier().eval()
        batched = {number: out["logits"] for number, out in answers(model, some, 64, {})}
        alone = [next(answers(model, [row], 64, {}))[1]["logits"] for row in some]
    assert max(float((batched[number] - one).abs().max()) for number, one in enumerate(alone)) < 2e-2  # bfloat16


def test_a_training_that_diverges_is_an_error_and_not_a_model() -> None:
    model = classifier()
    nn.init.constant_(model.get_parameter("classifier.bias"), torch.inf)
    with pytest.raises(AssetError, match="the training diverged at step 1 of "):
        train_(model, rows(8), SCHEDULE, {}, lambda line: None)


def test_what_is_left_is_told_every_quarter_of_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=10)
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    progress = training._Progress(5, said.append)
    for loss in (4.0, 2.0, 3.0, 3.0, 3.0):
        progress.step(loss)
    assert said == [
        "step 2 of 5, loss 3.000, about 30 s left",
        "step 4 of 5, loss 3.000, about 10 s left",
        "trained in 50 s: loss 3.000 at the end",
    ]
