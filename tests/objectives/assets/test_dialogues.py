"""Conversations come apart into turns whose answers are pieces of the passage."""

from __future__ import annotations

import json

import pytest

from objectives import assets
from objectives.assets.asset import AssetError
from objectives.assets.dialogues import NO_ANSWER, SPLITS, found_at, pieces, turns_of

PASSAGE = "In May 1983, she married Nikos, a composer. Art was her part; it started in 1975. Her daughter is Sofia."
CONVERSATION = {
    "passage": f"{PASSAGE} ",
    "question": "question1: what happened in 1983?\nquestion2: Any child?\nquestion3: Who else?",
    "answer": "possible answers for question1:\nIn May 1983, she married Nikos, she married Nikos, a composer. she "
    f"married Nikos, a composer.\npossible answers for question2:\nHer daughter is Sofia. Sofia\n"
    f"possible answers for question3:\n{NO_ANSWER} {NO_ANSWER}",
}


def test_joined_answers_come_apart_into_the_fewest_pieces() -> None:
    cases = (["she married Nikos,", "composer. Art was", "Nikos"], ["1975", "1983", "In May 1983,"], ["Art", "her"])
    for answers in cases:
        assert pieces(" ".join(answers), PASSAGE) == answers
    assert pieces("married Nikos, a composer. Art", PASSAGE) == ["married Nikos, a composer. Art"]  # side by side
    assert pieces(f"{NO_ANSWER} Sofia {NO_ANSWER}", PASSAGE) == [NO_ANSWER, "Sofia", NO_ANSWER]


def test_a_piece_begins_where_a_word_does() -> None:
    assert found_at("art", PASSAGE) == -1
    assert found_at("part", PASSAGE) == PASSAGE.index("part;")
    assert found_at("start", PASSAGE) == PASSAGE.index("started")
    assert found_at(", a composer", PASSAGE) == PASSAGE.index(", a composer")


def test_an_answer_of_other_words_is_an_error() -> None:
    with pytest.raises(AssetError, match="no piece of its passage: Nikos and Maria"):
        pieces("Nikos and Maria", PASSAGE)


def test_a_conversation_becomes_a_row_for_each_turn() -> None:
    rows = list(turns_of(CONVERSATION))
    assert [row["question"] for row in rows] == ["what happened in 1983?", "Any child?", "Who else?"]
    assert rows[0]["answer"] == ["she married Nikos, a composer.", "In May 1983, she married Nikos,"]
    assert rows[1]["answer"] == ["Her daughter is Sofia.", "Sofia"]
    assert rows[2]["answer"] == [NO_ANSWER]
    assert rows[2]["history"] == [
        {"question": "what happened in 1983?", "answer": "she married Nikos, a composer."},
        {"question": "Any child?", "answer": "Her daughter is Sofia."},
    ]
    for row in rows[:2]:
        assert row["context"] == PASSAGE
        assert all(PASSAGE[at:].startswith(answer) for at, answer in zip(row["answer_start"], row["answer"]))
    assert "answer_start" not in rows[2]


def test_questions_without_their_answers_are_an_error() -> None:
    with pytest.raises(AssetError, match="3 questions have 1 lines of answers"):
        list(turns_of({**CONVERSATION, "answer": "possible answers for question1:\nSofia"}))


@pytest.mark.slow
def test_all_turns_of_a_conversation_are_in_one_split() -> None:
    folder = assets.locate("dialogues")
    rows = {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in SPLITS
    }
    assert {split: len(some) for split, some in rows.items()} == {"train": 2382, "test": 618}
    assert not {row["context"] for row in rows["train"]} & {row["context"] for row in rows["test"]}
    every = [*rows["train"], *rows["test"]]
    assert sum(row["answer"] == [NO_ANSWER] for row in every) == 451
    assert all(NO_ANSWER not in row["answer"] for row in every if "answer_start" in row)
    assert max(len(row["answer"]) for row in every) == 5
