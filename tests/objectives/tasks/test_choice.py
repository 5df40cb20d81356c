"""A choice is as likely as its tokens, whatever shares a pass; the right one is found by any of its names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.choice import Choice
from objectives.tasks.likelihood import _longest, log_likelihoods
from objectives.tasks.overlap import require_disjoint
from tests.objectives.conftest import Tiny

ROWS = [
    {"text": "the cat sat on", "choices": [" a mat", "a man", "it"], "answer": 1},
    {"text": "a longer prompt, with more in it:", "choices": ["yes", "yesterday"], "answer": "yesterday"},
    {"text": "no", "choices": ["x", "y", "z", "w"], "answer": "c"},
    {"text": "what ends in a space ", "choices": ["one", "two"], "answer": "0"},
]


@pytest.fixture
def decoder(tiny: Tiny) -> TorchRunner:
    model = tiny("llama").copy()
    model.module.float()
    return TorchRunner(model)


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def task(tmp_path: Path) -> Choice:
    held = [{"text": f"calibrates {number}", "choices": ["a", "bc"], "answer": 1} for number in range(4)]
    return Choice(
        data=write(tmp_path / "a.jsonl", ROWS), calibration=write(tmp_path / "b.jsonl", held), batch_rows=3
    )  # fmt: skip


def plain(decoder: TorchRunner, prompt: str, choice: str) -> float:
    """By another way: one pass a choice in float64, one token after the other."""
    module, tokenizer = decoder.module, decoder.tokenizer
    before = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(prompt + choice)["input_ids"]
    logs = module(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return sum(float(logs[place - 1, ids[place]]) for place in range(before, len(ids)))


def test_likelihoods_are_those_of_one_pass_each(decoder: TorchRunner, task: Choice) -> None:
    questions = task._questions(task.divided().scored)
    found = task._likelihoods(decoder, questions)
    for row, likelihoods in zip(ROWS, found):
        prompt = row["text"].rstrip(" ")
        rest = row["text"][len(prompt) :] + " "
        assert likelihoods == pytest.approx(
            [plain(decoder, prompt, rest + choice) for choice in row["choices"]], abs=1e-4
        )
    assert [each.answer for each in questions] == [1, 1, 2, 0]
    score = task.evaluate(decoder)
    assert score.examples == tuple(
        float(max(range(len(row)), key=row.__getitem__) == each.answer) for row, each in zip(found, questions)
    )
    assert score.ids[2] == "a.jsonl, line 3"


@given(st.lists(st.lists(st.integers(0, 1), max_size=5).map(tuple), max_size=12))
def test_a_text_is_read_with_the_longest_that_begins_with_it(texts: list[tuple[int, ...]]) -> None:
    for text, found in zip(texts, _longest(texts)):
        assert found in texts
        assert found[: len(text)] == text
        assert not any(len(other) > len(found) and other[: len(found)] == found for other in texts)


def test_choices_of_one_token_need_one_pass_over_the_prompt(decoder: TorchRunner, monkeypatch: Any) -> None:
    read: list[tuple[torch.Size, int]] = []
    logits = decoder.logits
    monkeypatch.setattr(decoder, "logits", lambda ids, first: read.append((ids.shape, first)) or logits(ids, first))
    pairs = [((5, 6, 7), (8,)), ((5, 6, 7), (9,)), ((4, 6), (8,)), ((4, 6), (9,))]
    found = log_likelihoods(decoder, pairs, 8)
    assert read == [((2, 3), 1)]
    for (before, (after,)), each in zip(pairs, found):
        logs = decoder.module(input_ids=torch.tensor([before])).logits[0, -1].log_softmax(dim=0)
        assert each == pytest.approx(float(logs[after]), abs=1e-5)


def test_normalised_by_characters_another_choice_wins(decoder: TorchRunner, tmp_path: Path) -> None:
    rows = [
        {"text": f"question {number}", "choices": ["a", "a much longer choice"], "answer": 1} for number in range(6)
    ]
    data = write(tmp_path / "a.jsonl", rows)
    plainly, by_length = (
        Choice(data=data, metric=metric).evaluate(decoder) for metric in ("accuracy", "accuracy_norm")
    )
    assert plainly.accuracy == 0
    assert by_length.accuracy == 1


def test_templates_and_fixed_choices_give_the_same_questions(tmp_path: Path) -> None:
    rows = [{"q": f"is it {number}?", "options": "A. no\nB. yes", "is": bool(number % 2)} for number in range(4)]
    data = write(tmp_path / "a.jsonl", rows)
    common = {"doc_to_text": "{{q}}\nA:", "doc_to_target": "{{'yes' if is else 'no'}}"}
    fixed = Choice(data=data, choices=("no", "yes"), **common)
    made = Choice(
        data=data, doc_to_choice="{% for o in options.split('\n') %}{{o[3:]}}\n{% endfor %}", **common
    )  # fmt: skip
    questions = [each._questions(each.divided().scored) for each in (fixed, made)]
    assert questions[0] == questions[1]
    assert {(each.prompt[-3:], each.choices) for each in questions[0]} == {("\nA:", ("no", "yes"))}


def test_long_prompts_lose_their_beginning_and_are_counted(decoder: TorchRunner, tmp_path: Path) -> None:
    rows = [{"text": "x" * 50 + f" end {number}", "choices": ["a", "b"], "answer": 0} for number in range(4)]
    task = Choice(data=write(tmp_path / "a.jsonl", rows), tokens=20, calibration_rows=2)
    (remark,) = task.excerpts(decoder.model).remarks
    assert remark == "task.tokens: 2 of 2 prompts are cut at their beginning to 20 tokens"
    questions = task._questions(task.divided().scored)
    short = [plain(decoder, each.prompt[-18:], " a") for each in questions]
    assert [found[0] for found in task._likelihoods(decoder, questions)] == pytest.approx(short, abs=1e-4)
    assert task.evaluate(decoder).accuracy in (0, 0.5, 1)


def test_calibration_rows_are_prompts_with_their_answers(decoder: TorchRunner, task: Choice) -> None:
    (batches,) = task.calibration(decoder.model).values()
    texts = ["".join(decoder.tokenizer.convert_ids_to_tokens(row)) for batch in batches for row in batch]
    assert sorted(texts) == [f"calibrates {number} bc" for number in range(4)]


def test_a_hopeless_model_has_a_score_that_says_so(decoder: TorchRunner, task: Choice) -> None:
    decoder.module.model.norm.weight.fill_(math.nan)
    assert math.isnan(task.evaluate(decoder).accuracy)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"text": "a", "choices": ["b", "c"], "answer": "d"},
            r"line 1 has the answer 'd', its choices are \['b', 'c'\]",
        ),
        ({"text": "a", "choices": ["b", "c"], "answer": 2}, "line 1 has the answer '2'"),
        ({"text": "a", "choices": "b", "answer": "b"}, "has 0 choices, at least 2 are needed.*doc_to_choice"),
        ({"text": "a", "choices": ["b", "c"]}, "has no column 'answer', it has text, choices"),
    ],
)
def test_rows_that_are_no_questions_are_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    rows = [{**row, "text": f"{row['text']} {number}"} for number in range(2)]
    with pytest.raises(DataError, match=said):
        Choice(data=write(tmp_path / "a.jsonl", rows)).require_documents()


@pytest.mark.parametrize(
    ("choices", "answer", "right"),
    [
        (["true", "false"], True, 0), (["True", "False"], False, 1), (["No", "Yes"], True, 1),
        (["no", "yes"], False, 0),
        (["correct", "incorrect"], True, None),
        ([1, 2, 3], 1, 0), (["1", "2", "3"], 1, 1), ([10, 20], 1, 1), ([2.5, 1.5], 1.5, 1),
        (["a", "b"], 1.0, 1), (["a", "b"], 1.5, None), (["a", "b"], "B", 1), (["a", "b"], "1", 1),
    ],
)  # fmt: skip
def test_an_answer_is_a_text_a_place_a_letter_or_a_truth(
    tmp_path: Path, choices: list[Any], answer: Any, right: int | None
) -> None:
    rows = [{"text": f"q {number}", "choices": choices, "answer": answer} for number in range(2)]
    task = Choice(data=write(tmp_path / "a.jsonl", rows))
    if right is None:
        with pytest.raises(DataError, match=f"has the answer '{answer}', its choices are"):
            task.require_documents()
    else:
        assert [each.answer for each in task._questions(task.divided().scored)] == [right]


def test_two_equal_choices_are_wrong(tmp_path: Path) -> None:
    rows = [{"text": f"q {number}", "choices": ["same", "b", "same"], "answer": 0} for number in range(2)]
    with pytest.raises(DataError, match="line 1 has the choice 'same' 2 times"):
        Choice(data=write(tmp_path / "a.jsonl", rows)).require_documents()


@pytest.mark.parametrize("empty", ["", " ", None])
def test_a_choice_of_nothing_is_a_wrong_row(tmp_path: Path, empty: str | None) -> None:
    file = write(tmp_path / "a.jsonl", [*ROWS, {"text": "q", "choices": ["a", empty], "answer": 0}])
    with pytest.raises(
        DataError, match=r"task\.choices: 1 of 5 rows are wrong: a\.jsonl, line 5 has nothing as choice 1"
    ):
        Choice(data=file, metric="accuracy_norm").require_documents()


def test_a_choice_longer_than_what_is_read_is_refused(decoder: TorchRunner, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": "q", "choices": ["a " * 50, "b"], "answer": 0}])
    with pytest.raises(DataError, match=r"task\.choices: a\.jsonl, line 1: the choice 'a a .*at most 16 are read"):
        Choice(data=file, calibration=write(tmp_path / "b.jsonl", ROWS), tokens=16).evaluate(decoder)


def test_numbers_of_a_yaml_are_choices_by_their_text_and_truth_values_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": f"q {n}", "answer": bool(n % 2)} for n in range(8)])
    assert Choice(data=file, choices=[1, 2]).choices == ("1", "2")
    with pytest.raises(ValidationError, match="valid string"):
        Choice(data=file, choices=[True, False])


def test_questions_of_one_prompt_with_choices_of_their_own_are_divided(decoder: TorchRunner, tmp_path: Path) -> None:
    rows = [{"text": "which is true?", "choices": [f"a {n}", f"b {n}"], "answer": 0} for n in range(8)]
    task = Choice(data=write(tmp_path / "a.jsonl", rows))
    assert not require_disjoint(task, decoder.model)
    assert len(task.divided().scored) == 4
