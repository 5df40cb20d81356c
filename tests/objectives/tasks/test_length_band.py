"""The length of answers: a ratio of sums over all examples, in whatever parts they are scored."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from objectives.tasks.domains import Domains
from objectives.tasks.generation import Generation
from objectives.tasks.length_band import with_lengths
from objectives.tasks.partial_scores import merged
from objectives.types import Score

WANTED = ("a b c", "d", "e f", "g h i j")
ANSWERS = ("a", "d e f", None, "g h")


def words(text: str) -> int:
    return len(text.split())


def part(first: int, last: int) -> Score:
    blank = Score(0.5, 0.0, (0.5,) * (last - first), {"perplexity": 3.0}, tuple(map(str, range(first, last))))
    return with_lengths(blank, ANSWERS[first:last], WANTED[first:last], words)


def test_the_ratio_is_that_of_all_tokens_however_the_examples_come() -> None:
    """Neither the mean of the ratios nor the ratio of a batch: 6 of 8 tokens; a lost answer counts nowhere."""
    for cuts in ((0, 4), (0, 1, 4), (0, 1, 2, 3, 4)):
        score = merged([part(*pair) for pair in pairwise(cuts)])
        assert score.extra["length_ratio"] == 6 / 8
        assert score.sums == {"length_ratio": (6.0, 8.0)}
        assert score.extra["perplexity"] == pytest.approx(3.0)


def test_answers_of_which_none_is_left_have_no_length() -> None:
    assert part(2, 3).extra["length_ratio"] == 0.0


def test_a_band_is_told_by_the_task_and_through_domains() -> None:
    task = Generation(data="x.jsonl", length_band=(0.9, 1.1))
    assert task.bands == {"length_ratio": (0.9, 1.1)}
    assert Domains(served={"a": task, "b": Generation(data="y.jsonl")}).bands == {"length_ratio.a": (0.9, 1.1)}
    assert Generation(data="x.jsonl").bands == {}


@pytest.mark.parametrize("band", [(1.1, 0.9), (-0.1, 1.0), (0.9,), (1.0, 1.0)])
def test_a_band_that_is_none_is_refused(band: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="length_band"):
        Generation(data="x.jsonl", length_band=band)
