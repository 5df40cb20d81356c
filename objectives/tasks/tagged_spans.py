"""Spans that tags mark, and how many of them were found. The schemes IOB1, IOB2, IOE, IOBES and BILOU are read alike.

A tag is ``O``, or a prefix and a type: ``B-PER``, ``B_PER``. A span begins at B or S, where the type changes, and after
a span has ended; it ends after E or S, and before all that begins another: the rules of conlleval, which seqeval keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"

_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
"""The prefixes of all schemes by those of IOBES: BILOU's L and U are its E and S."""

_SEPARATORS = ("-", "_", "")
"""Characters that stand between prefix and type; a prefix alone has neither."""

Found = tuple[str, int, int]
"""Type, first word and last word."""


def spans_of(tags: Sequence[str]) -> set[Found]:
    """Return the spans that ``tags`` mark, one tag a word."""
    return set(_spans(tags))


def _spans(tags: Sequence[str]) -> Iterator[Found]:
    before, kind_before, start = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = _parts(tag)
        if _ends(before, prefix, kind_before, kind):
            yield kind_before, start, place - 1
        if _begins(before, prefix, kind_before, kind):
            start = place
        before, kind_before = prefix, kind


def _parts(tag: str) -> tuple[str, str]:
    """Return prefix and type. A tag that is no prefix and has none is a type of its own, as parts of speech are."""
    if tag in {OUTSIDE, "o", "_", ""}:
        return OUTSIDE, ""
    prefix, kind = tag[:1], tag[2:]
    found = _PREFIXES.get(prefix.upper()) if tag[1:2] in _SEPARATORS else None
    return ("I", tag) if found is None else (found, kind)


def _ends(before: str, prefix: str, kind_before: str, kind: str) -> bool:
    if before == OUTSIDE:
        return False
    return before in {"E", "S"} or prefix in {"B", "S", OUTSIDE} or kind != kind_before


def _begins(before: str, prefix: str, kind_before: str, kind: str) -> bool:
    if prefix == OUTSIDE:
        return False
    return prefix in {"B", "S"} or before in {"E", "S", OUTSIDE} or kind != kind_before


def span_counts(right: Sequence[str], answered: Sequence[str]) -> tuple[int, int, int]:
    """Return the numbers of spans that were found, that are right, and that were answered."""
    wanted, found = spans_of(right), spans_of(answered)
    return len(wanted & found), len(wanted), len(found)


def f1(counts: NDArray[Any]) -> Any:
    """Return 2 hits / (right + answered) of counts [..., 3]; 0 where there is nothing at all."""
    counts = np.asarray(counts, dtype=np.float64)
    sums = counts[..., 1] + counts[..., 2]
    return np.where(sums > 0, 2 * counts[..., 0] / np.maximum(sums, 1), 0.0)
