"""A decoder in a process of its own, whose cache is the text so far.

The process keeps what it read last, and reads again only what differs: so any cache can be continued, in any order of
rows, and more than once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from objectives.runtime.engines.folder import DecoderEngine, Floats, Generating, Ids, Selecting

if TYPE_CHECKING:
    from objectives.protocols.running import EndPhase
    from objectives.types import Phase

    Text = NDArray[np.int32]
    Texts = tuple[Text, ...]
    Tokens = Sequence[Sequence[int]]


class TextDecoder(DecoderEngine, Generating, Selecting):
    """A decoder that is asked with whole texts."""

    @abstractmethod
    def logits_at(self, texts: Sequence[Text], wanted: Sequence[Ids]) -> Floats:
        """Return the logits [sum of wanted, vocabulary] at places of ``texts``, each place once, ascending."""

    @abstractmethod
    def continued(self, texts: Sequence[Text], count: int, end_phase: Callable[[str], object]) -> Tokens:
        """Return the ``count`` likeliest tokens after each text; ``end_phase`` is told the name of every pass."""

    @override
    def start(self, rows: int) -> Texts:
        return tuple(np.zeros(0, np.int32) for _ in range(rows))

    @override
    def select(self, cache: Texts, rows: Sequence[int]) -> Texts:
        return tuple(cache[row] for row in rows)

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: Texts) -> tuple[Floats, Texts]:
        """Return the logits and the texts so far; what comes before place 0 is padding, and is dropped."""
        texts = tuple(
            np.concatenate([seen, row])[-(int(last) + 1) :].astype(np.int32)
            for seen, row, last in zip(cache, ids, places[:, -1])
        )
        at = [np.maximum(len(text) - ids.shape[1] + wanted, 0) for text in texts]
        unique = [np.unique(each) for each in at]
        answer = self.logits_at(texts, unique)
        parts = np.split(answer, np.cumsum([len(each) for each in unique])[:-1])
        logits = [part[np.searchsorted(each, asked)] for part, each, asked in zip(parts, unique, at)]
        return np.stack(logits), texts

    @override
    def generate(self, ids: Ids, out: Ids, mask: NDArray[np.bool_] | None, end_phase: EndPhase | None) -> None:
        texts = [(row if mask is None else row[mask[index]]).astype(np.int32) for index, row in enumerate(ids)]

        def end(phase: str) -> None:
            if end_phase is not None:
                end_phase(cast("Phase", phase), None)

        out[:] = np.asarray(self.continued(texts, out.shape[1], end))
