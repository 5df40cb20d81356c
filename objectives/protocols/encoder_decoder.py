"""The protocol of runners whose decoder reads what an encoder made of a source.

To an encoder-decoder, ``Runner.prefill`` gives the sources and lets the decoder begin: the logits are those of the
first token that it writes, and ``step`` goes on from there as a decoder does. Here the two parts of the prefill are
apart, so that each can be timed by itself. ``Runner.logits`` lets the decoder read the source too, one place later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Opening:
    """The way in which a decoder begins, as its checkpoint says.

    ``tokens``: what it reads before it writes; ``forbidden``: what it never writes.
    """

    tokens: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()


@runtime_checkable
class ReadsSources(Protocol):
    """A runner that can drive encoder-decoders; only where its head is ``seq2seq`` it may be asked to."""

    @property
    def opening(self) -> Opening:
        """Return how the decoder begins; nothing for other kinds of model."""

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Any:
        """Return what a decoder needs of the sources ``ids`` [rows, tokens], padded on the right."""

    def begin(self, sources: Any, ids: Tensor) -> tuple[Tensor, Any]:
        """Make the decoder read its first tokens ``ids`` [rows, tokens]; return what ``Runner.prefill`` does."""
