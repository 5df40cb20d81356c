"""A drill's answer is a clause of its text, and its question is made of the answer's words."""

from __future__ import annotations

import random
import re

from objectives.assets.drills import drills

PASSAGE = " ".join(
    f"Person {number} went with friend {number} to town {number}, where they stayed for {number} days."
    for number in range(60)
)


def test_answers_are_clauses_where_they_are_said_to_be() -> None:
    made = list(drills(PASSAGE, 200, random.Random(0)))
    assert len(made) == 200
    for drill in made:
        (answer,), (start,) = drill["answer"], drill["answer_start"]
        assert drill["context"] in PASSAGE
        assert len(drill["context"]) <= 650
        assert drill["context"][start:].startswith(answer)
        assert re.fullmatch(r"(Person|where) .*[,.]", answer)
        words = set(re.findall(r"\w+", answer.lower()))
        assert set(drill["question"].rstrip("?").split()) <= words


def test_most_answers_follow_the_clause_of_the_turn_before() -> None:
    made = list(drills(PASSAGE, 300, random.Random(1)))
    following = [f"{each['history'][0]['answer']} {each['answer'][0]}" in PASSAGE for each in made]
    assert 0.65 < sum(following) / 300 < 0.9


def test_a_text_of_one_clause_makes_none() -> None:
    assert list(drills("One short text without a comma.", 5, random.Random(0))) == []
    assert list(drills("", 5, random.Random(0))) == []
