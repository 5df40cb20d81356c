"""The lengths that a workload or task asks a model to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["encoder", "decoder"]
"""Which half of an encoder-decoder reads a sequence; decoders and encoders have one half."""


@dataclass(frozen=True)
class Span:
    """The tokens of one sequence that a model must be able to hold: ``parts`` added up, which ``settings`` ask for."""

    settings: tuple[str, ...]
    parts: tuple[int, ...]
    side: Side = "decoder"

    @property
    def tokens(self) -> int:
        """All of them."""
        return sum(self.parts)
