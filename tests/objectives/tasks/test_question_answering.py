"""The likeliest span is found among all, in whatever window it lies, and rated as SQuAD does."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.answer_spans import Window, best_span, texts_of_answers
from objectives.tasks.encoding import Encoded
from objectives.tasks.question_answering import QuestionAnswering
from tests.objectives.conftest import Tiny
from tests.objectives.tasks.test_choice import write

TEXTS = ["the cat sat on a mat", "in 1912 it sank near the coast of an island", "no", "two birds in the bush"]
ROWS = [
    {"question": f"what is it {number}?", "context": text, "answer": [text[:3], text[-4:]]}
    for number, text in enumerate(TEXTS * 3)
]
HELD = [{"question": f"calibrates {number}?", "context": "with a text", "answer": "text"} for number in range(3)]


@pytest.fixture
def reader(tiny: Tiny) -> TorchRunner:
    model = tiny("bert, question_answering").copy()
    model.module.float()
    return TorchRunner(model)


def task(folder: Path, rows: list[dict[str, Any]] = ROWS, **settings: Any) -> QuestionAnswering:
    return QuestionAnswering(
        data=write(folder / "a.jsonl", rows), calibration=write(folder / "b.jsonl", HELD),
        **{"batch_rows": 3, "stride": 4, **settings},
    )  # fmt: skip


def plain(runner: TorchRunner, question: str, text: str, longest: int) -> str:
    """Every span of one pass over the whole text, in plain Python."""
    read = runner.tokenizer(question, text, return_tensors="pt", return_offsets_mapping=True)
    spans = read.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        output = runner.module(**read)
    begins, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
    places = [place for place, side in enumerate(read.sequence_ids(0)) if side == 1]
    pairs = [(one, other) for one in places for other in places if one <= other < one + longest]
    first, last = max(pairs, key=lambda pair: begins[pair[0]] + ends[pair[1]])
    return text[spans[first][0] : spans[last][1]]


def test_answers_are_those_of_every_span_tried_in_one_pass(reader: TorchRunner, tmp_path: Path) -> None:
    asked = task(tmp_path, answer_tokens=7)
    found = asked.answers(reader, asked._questions(asked.divided().scored))
    assert found == [plain(reader, row["question"], row["context"], 7) for row in ROWS]
    assert len(set(found)) > 2


def test_a_long_text_is_read_in_windows_that_cover_it(reader: TorchRunner, tmp_path: Path) -> None:
    asked = task(tmp_path, tokens=30)
    cut = [asked._windows(reader, each) for each in asked._questions(asked.divided().scored)]
    assert max(map(len, cut)) > 1
    for row, some in zip(ROWS, cut):
        assert {place for one in some for span in one.spans if span for place in range(*span)} == set(
            range(len(row["context"]))
        )
        assert all(len(one.encoded.ids) <= 30 for one in some)
    score = asked.evaluate(reader)
    assert 0 <= score.accuracy <= 1


def test_the_best_span_is_that_of_a_loop_over_all() -> None:
    generator = torch.Generator().manual_seed(1)
    for tokens, longest in itertools.product((3, 9), (1, 4, 20)):
        spans = [None, *((place, place + 1) for place in range(tokens - 1))]
        window = Window(Encoded([0] * tokens, None, tokens), spans)
        logits = torch.randn(tokens, 2, generator=generator)
        found = best_span(window, logits, longest)
        pairs = [(one, other) for one in range(1, tokens) for other in range(one, min(tokens, one + longest))]
        first, last = max(pairs, key=lambda pair: float(logits[pair[0], 0] + logits[pair[1], 1]))
        assert found is not None
        assert (found.first, found.last) == (first - 1, last)
        assert found.nothing == pytest.approx(float(logits[0].sum()))
    assert best_span(window, logits.fill_(math.nan), 3) is None


def test_an_unanswerable_question_is_right_without_an_answer(reader: TorchRunner, tmp_path: Path) -> None:
    with torch.inference_mode():
        reader.module.qa_outputs.weight.zero_()
        reader.module.qa_outputs.bias.zero_()
    rows = [{**row, "answer": []} for row in ROWS]
    assert task(tmp_path, rows, unanswerable=True, metric="exact_match").evaluate(reader).accuracy == 0.0
    forward = reader.encode
    reader.encode = lambda *asked: forward(*asked) + 9.0 * (torch.arange(asked[0].shape[1]) == 0)[None, :, None]  # type: ignore[method-assign]
    assert task(tmp_path, rows, unanswerable=True, metric="exact_match").evaluate(reader).accuracy == 1.0


def test_calibration_marks_the_tokens_of_the_text(reader: TorchRunner, tmp_path: Path) -> None:
    (batch,) = task(tmp_path).calibration(reader.model)["task"]
    assert batch.scored.sum(dim=1).tolist() == [len("with a text")] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "texts"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ({"text": ["a"], "answer_start": [0]}, ("a",)), ([], ()), (7, ("7",))],
)
def test_answers_are_read_in_the_forms_that_datasets_have(value: Any, texts: tuple[str, ...]) -> None:
    assert texts_of_answers(value) == texts


def test_a_question_that_leaves_no_room_is_told(reader: TorchRunner, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.tokens: .*line 1: a question of 13 tokens leaves 3 of 16 for the text"):
        task(tmp_path, tokens=16).evaluate(reader)


def test_a_row_without_an_answer_is_told_unless_questions_may_have_none(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "why?", "context": "so it is", "answer": []}]
    with pytest.raises(DataError, match=r"task\.answer: 1 of 13 rows are wrong: .*line 13 has no answer; .*answerable"):
        task(tmp_path, rows).require_documents()
    for answer in ([], "", None):
        task(tmp_path, [*ROWS, {**rows[-1], "answer": answer}], unanswerable=True).require_documents()


def test_answers_that_no_text_holds_are_refused_and_a_few_are_told(tmp_path: Path) -> None:
    strange = [{**row, "answer": "nowhere in it"} for row in ROWS]
    held = [{**row, "answer": "nor here"} for row in HELD]
    asked = QuestionAnswering(data=write(tmp_path / "c.jsonl", strange), calibration=write(tmp_path / "d.jsonl", held))
    with pytest.raises(DataError, match=r"task\.answer: 15 of 15 rows are wrong: .*'nowhere in it', its text does not"):
        asked.require_documents()
    asked = task(tmp_path, [*ROWS[:-1], strange[-1]])
    asked.require_documents()
    assert asked.remarks() == (
        "task.answer: 1 of 12 scored rows cannot be answered in full: a.jsonl, line 12 has the answer 'nowhere in it', "
        "its text does not",
    )
    upper = [{**row, "answer": row["answer"][0].upper().replace(" ", "\n")} for row in ROWS]
    assert task(tmp_path, upper).remarks() == ()
