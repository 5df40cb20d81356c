"""The cover: every pair that a case contains, few cases, and the rest under ``slow``."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pairwise import Case, cover, pairwise


def pairs_of(cases: list[Case]) -> set[object]:
    return {pair for case in cases for pair in combinations(enumerate(case), 2)}


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=40))
def test_a_cover_contains_each_pair_that_any_case_contains(cases: list[Case]) -> None:
    assert pairs_of([cases[place] for place in cover(cases)]) == pairs_of(cases)


def test_a_cover_of_a_product_is_much_smaller() -> None:
    cases = list(product(range(5), range(4), range(4), range(2)))
    assert 20 <= len(cover(cases)) <= 26


def test_values_that_compare_equal_are_told_apart() -> None:
    assert len(cover([(0,), (False,), (0.0,), (0,)])) == 3


def test_the_rest_is_slow() -> None:
    mark = pairwise("choice family", [("a", "x"), ("b", "x"), ("b", "y")], ratio=[0.1, 0.2], bits=[8, 4]).mark
    names, cases = mark.args
    slow = [case for case in cases if case.marks == (pytest.mark.slow,)]
    quick = [case.values for case in cases if not case.marks]
    assert names == ("choice", "family", "ratio", "bits")
    assert len(cases) == 12
    assert 4 <= len(quick) <= 7
    assert len(slow) + len(quick) == 12
    assert {case[:2] for case in quick} == {("a", "x"), ("b", "x"), ("b", "y")}


def test_two_factors_are_their_own_pairs() -> None:
    _, cases = pairwise("", family=["a", "b"], ratio=[0.1, 0.2]).mark.args
    assert [case.marks for case in cases] == [()] * 4
