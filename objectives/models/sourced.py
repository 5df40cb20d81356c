"""A decoder's cache with the sources that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sources:
    """The sources of a batch as an encoder read them.

    ``states``: the encoder's output, of a class of transformers; ``mask`` [rows, tokens]: 1 where a token counts, or
    None where all do; ``origins``: by row, the number of its source. Rows of one source may be exchanged freely.
    """

    states: Any
    mask: Tensor | None
    origins: tuple[int, ...]


@dataclass(frozen=True)
class Sourced:
    """A cache of transformers for self-attention and cross-attention, with its ``sources``."""

    cache: Any
    sources: Sources
