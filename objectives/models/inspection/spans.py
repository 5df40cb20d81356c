"""The lengths that a workload or task asks a model to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["encoder", "decoder"]
"""The half of an encoder-decoder that reads a sequence; decoders and encoders have one half."""


@dataclass(frozen=True)
class Span:
    """The length of one sequence that a model must be able to hold.

    ``parts``: numbers of tokens that add up to it. ``settings``: the settings that ask for these parts.
    """

    settings: tuple[str, ...]
    parts: tuple[int, ...]
    side: Side = "decoder"

    @property
    def tokens(self) -> int:
        """Return the length of the sequence in tokens."""
        return sum(self.parts)
