"""Spans and their F1 are seqeval's, and a word's answer is that of its first token."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.tagged_spans import f1, span_counts, spans_of
from objectives.tasks.token_classification import TokenClassification
from tests.objectives.conftest import Tiny
from tests.objectives.tasks.test_choice import write

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from seqeval.metrics import f1_score
    from seqeval.metrics.sequence_labeling import get_entities

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
tags = st.sampled_from([*TAGS, "E-PER", "S-LOC"])
SENTENCES = ["Ann went to Rome", "no one is here", "Bob and Cy", "it rained", "Paris is not in Texas ."]
ROWS = [
    {"words": [*line.split(), str(number)], "tags": [TAGS[(at + number) % 5] for at in range(len(line.split()) + 1)]}
    for number, line in enumerate(SENTENCES * 3)
]
HELD = [{"words": ["calibrates", str(number)], "tags": ["O", "O"]} for number in range(4)]


@pytest.fixture
def tagger(tiny: Tiny) -> TorchRunner:
    model = tiny("bert, token_classifier").copy()
    model.module.float()
    model.module.config.id2label = dict(enumerate(TAGS))
    return TorchRunner(model)


def task(folder: Path, rows: list[dict[str, Any]] = ROWS, **settings: Any) -> TokenClassification:
    return TokenClassification(
        data=write(folder / "a.jsonl", rows), calibration=write(folder / "b.jsonl", HELD), batch_rows=4, **settings
    )  # fmt: skip


def plain(runner: TorchRunner, words: list[str]) -> list[str]:
    read = runner.tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        found = runner.module(**read).logits[0].argmax(-1).tolist()
    owners = read.word_ids()
    return [TAGS[found[owners.index(word)]] for word in range(len(words))]


@given(st.lists(tags, max_size=12))
def test_spans_are_those_of_seqeval(sequence: list[str]) -> None:
    assert spans_of(sequence) == set(get_entities(sequence))


@given(st.lists(st.lists(st.tuples(tags, tags), min_size=1, max_size=8), min_size=1, max_size=6))
def test_f1_over_all_rows_is_that_of_seqeval(rows: list[list[tuple[str, str]]]) -> None:
    right, found = ([[pair[side] for pair in row] for row in rows] for side in (0, 1))
    counts = np.array([span_counts(*pair) for pair in zip(right, found)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert float(f1(counts.sum(axis=0))) == pytest.approx(f1_score(right, found, zero_division=0), abs=1e-12)


BILOU = {"E": "L", "S": "U"}


@given(st.lists(st.lists(st.sampled_from(["O", "B", "I", "E", "S"]), min_size=1, max_size=8), min_size=1, max_size=4))
def test_tags_without_types_in_small_letters_and_of_bilou_mark_the_same_spans(rows: list[list[str]]) -> None:
    for row in rows:
        typed = spans_of([tag if tag == "O" else f"{tag}-X" for tag in row])
        places = {span[1:] for span in typed}
        assert {span[1:] for span in spans_of(row)} == places
        assert {span[1:] for span in spans_of([tag.lower() for tag in row])} == places
        assert spans_of([tag if tag == "O" else f"{BILOU.get(tag, tag)}-X" for tag in row]) == typed
        assert spans_of([tag if tag == "O" else f"{tag}_X" for tag in row]) == typed
        assert spans_of(["_" if tag == "O" else f"{tag}-X" for tag in row]) == typed


def test_the_score_is_seqevals_of_the_models_answers(tagger: TorchRunner, tmp_path: Path) -> None:
    found = [plain(tagger, row["words"]) for row in ROWS]
    score = task(tmp_path).evaluate(tagger)
    assert score.accuracy == pytest.approx(f1_score([row["tags"] for row in ROWS], found), abs=1e-12)
    assert len(score.replicates) == 1000
    words = task(tmp_path, metric="accuracy").evaluate(tagger)
    hits = [one == other for row, tags in zip(ROWS, found) for one, other in zip(row["tags"], tags)]
    assert words.accuracy == pytest.approx(np.mean(hits), abs=1e-12)
    assert words.replicates == ()


def test_words_beyond_the_cut_are_in_no_span(tagger: TorchRunner, tmp_path: Path) -> None:
    cut = task(tmp_path, tokens=6)
    read = cut._answers(tagger, cut._tagged(tagger, cut.divided().scored))
    assert read[0] is not None
    assert read[0][-1] is None
    assert cut.evaluate(tagger).accuracy < 1
    assert "rows are cut at their end to 6 tokens" in cut.excerpts(tagger.model).remarks[0]


def test_calibration_marks_the_first_token_of_every_word(tagger: TorchRunner, tmp_path: Path) -> None:
    for batch in task(tmp_path).calibration(tagger.model)["task"]:
        assert int(batch.scored.sum()) == 2 * len(batch)  # type: ignore[union-attr]


def test_words_and_tags_of_unlike_number_are_told_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.tags: 1 of 16 rows are wrong: .*line 16 has 2 words and 1 tags"):
        task(tmp_path, [*ROWS, {"words": ["a", "b"], "tags": ["O"]}]).require_documents()


def test_words_without_any_token_are_wrong_rows(tagger: TorchRunner, tmp_path: Path) -> None:
    rows = [*ROWS, {"words": [""], "tags": ["O"]}]
    with pytest.raises(
        DataError, match=r"task\.words: 1 of 16 rows are wrong: a\.jsonl, line 16 has words without any"
    ):
        task(tmp_path, rows).evaluate(tagger)


def test_unknown_tags_are_counted_in_rows_and_named_by_their_setting(tagger: TorchRunner, tmp_path: Path) -> None:
    rows = [*ROWS, {"words": ["a", "b", "c"], "tags": ["B-PERS", "X", "B-PERS"]}]
    with pytest.raises(
        DataError, match=r"task\.tags: 1 of 16 rows are wrong: a\.jsonl, line 16 has the tag 'B-PERS', 'X'; the model"
    ):
        task(tmp_path, rows).evaluate(tagger)
