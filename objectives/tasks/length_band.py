"""Compares how long answers are with how long the references are, in tokens.

A model that is compressed too far may ramble or fall silent and still share words with the references. MLPerf asks for
90 to 110 % of the reference's tokens beside the accuracy. The figure is that of all answers together: the tokens
written over the tokens of the references, of several accepted ones the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from objectives.errors import DataError
from objectives.types import Score

LENGTH_RATIO = "length_ratio"

Edge = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
LengthBand = tuple[Edge, Edge]
"""The least and the largest share of the references' tokens that may be written."""


def require_band(band: LengthBand | None) -> None:
    """Raise ValueError for a band whose ends are the wrong way round."""
    if band is not None and not band[0] < band[1]:
        raise ValueError(f"length_band: the least share comes first, as [0.9,1.1]; got {list(band)}")


def require_reachable(band: LengthBand | None, references: Sequence[int], new_tokens: int) -> None:
    """Raise DataError where no answers of ``new_tokens`` tokens at most are as long as ``band`` asks.

    ``references``: their lengths in tokens. All answers together may have ``new_tokens`` tokens each.
    """
    if band is not None and len(references) * new_tokens < band[0] * sum(references):
        mean = sum(references) / len(references)
        raise DataError(
            f"task.new_tokens: {new_tokens} are too few for task.length_band, which asks for {band[0]:g} of the "
            f"references' {mean:.4g} tokens on average; the longest has {max(references)}"
        )


def bands(band: LengthBand | None) -> Mapping[str, LengthBand]:
    """Return the band by the name of its metric; empty without one."""
    return {} if band is None else {LENGTH_RATIO: band}


def with_lengths(
    score: Score, answers: Sequence[str | None], wanted: Sequence[str], count: Callable[[str], int]
) -> Score:
    """Return ``score`` with the ratio of lengths; ``count``: the tokens of a text. Answers that are lost are none."""
    kept = [(answer, text) for answer, text in zip(answers, wanted) if answer is not None]
    written, asked = (float(sum(map(count, texts))) for texts in (zip(*kept) if kept else ((), ())))
    extra = {**score.extra, LENGTH_RATIO: written / (asked or 1.0)}
    return replace(score, extra=extra, sums={**score.sums, LENGTH_RATIO: (written, asked)})
