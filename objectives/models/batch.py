"""A batch of calibration rows: what a model reads, what it should write, and which of its answers matter.

Compression is fitted to what the task asks: an encoder-decoder writes the targets of its sources, a classifier of pairs
tells its texts apart, and a loss is about the answers that a task reads. A batch of token ids alone is a plain tensor;
everything here takes one too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one length, without padding.

    ``ids``: int64 [rows, tokens]; ``types`` [rows, tokens]: token types, for encoders with a head; ``targets`` [rows,
    target tokens]: what an encoder-decoder is to write. ``scored``: bool, the answers that the task reads, all by
    default: of an encoder-decoder [rows, target tokens], else [rows, tokens]; of a decoder, the answer at a place is
    the token after it.
    """

    ids: Tensor
    types: Tensor | None = None
    targets: Tensor | None = None
    scored: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Return rows and tokens."""
        return self.ids.shape

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rows, each as a batch."""
        return (self[place : place + 1] for place in range(len(self)))

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        """Return some of the rows."""
        return self._mapped(lambda part: part[rows])

    def numel(self) -> int:
        """Return how many tokens are read."""
        return self.ids.numel()

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return self._mapped(lambda part: part.to(device))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Return what the batch has, by name."""
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def description(self) -> list[int | str]:
        """Return the sizes of what it has, by name but for the ids; those of a tensor of ids are its shape."""
        return [word for name, part in self.tensors.items() for word in (*([name] * (name != "ids")), *part.shape)]

    @property
    def content(self) -> bytes:
        """Return the bytes of all that it has."""
        return b"".join(part.numpy().tobytes() for part in self.tensors.values())

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return what rows must have in common to stand in one batch: the lengths of all that it has."""
        return tuple(part.shape[1] for part in self.tensors.values())

    @property
    def answers(self) -> int:
        """Return how many answers the task reads, of a model that answers at every token."""
        if self.scored is not None:
            return int(self.scored.sum())
        return (self.ids if self.targets is None else self.targets).numel()

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(**{name: change(part) for name, part in self.tensors.items()})


def batch_of(batch: Tensor | Batch) -> Batch:
    """Return ``batch``; one of plain ids as a :class:`Batch`."""
    return batch if isinstance(batch, Batch) else Batch(batch)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return one batch with the rows of ``batches``, which have the same lengths."""
    import torch

    parts = [each.tensors for each in batches]
    return Batch(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
