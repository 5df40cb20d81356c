"""Tries every pair of values of a contract in each run, and the rest of its product under ``slow``.

A fault that needs three particular values at once is rare; one that needs two is not. A few cases of a product
contain all pairs of its values: each pair of member and family, of member and ratio, of family and ratio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import pytest

Case = tuple[Any, ...]


def pairwise(
    names: str, cases: Iterable[Case] = ((),), indirect: Sequence[str] = (), **values: Sequence[object]
) -> pytest.MarkDecorator:
    """Return the mark that tries a test with each of ``cases`` and each of ``values``; ``slow`` but for a cover.

    ``names``: of the fields of a case, parted by spaces; some combinations of them may be absent. ``indirect``: those
    that are given to a fixture.
    """
    known = [tuple(case) for case in cases]
    everything = [(*case, *rest) for case in known for rest in product(*values.values())]
    chosen = cover(everything)
    return pytest.mark.parametrize(
        (*names.split(), *values),
        [
            pytest.param(*case, marks=() if place in chosen else pytest.mark.slow)
            for place, case in enumerate(everything)
        ],
        indirect=list(indirect),
    )


def cover(cases: Sequence[Case]) -> set[int]:
    """Return the places of few cases that together contain each pair of values that any case contains.

    Greedy: the next one contains the most pairs that are missing, the first of equals. Values are told apart by
    ``repr``, so that 0 and False differ.
    """
    pairs = [_pairs(case) for case in cases]
    missing: set[object] = set().union(*pairs)
    chosen = set()
    while missing:
        best = max(range(len(cases)), key=lambda place: len(pairs[place] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return chosen


def _pairs(case: Case) -> set[object]:
    named: Mapping[int, str] = {place: repr(value) for place, value in enumerate(case)}
    return set(combinations(named.items(), 2)) if len(case) > 1 else set(named.items())
