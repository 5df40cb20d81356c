"""Computes the logits of some tokens only: a prompt must not pay for words that nobody reads.

With a large vocabulary they would outweigh the rest of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def tokens_from(head: nn.Module | None, first: int) -> Iterator[None]:
    """Give ``head``, where a model has one, the tokens of every row from place ``first`` on, as a tensor of its own.

    Encoder-decoders take no ``logits_to_keep``. Decoders do, and hand over a slice of all tokens, for which torch
    copies the whole matrix once a row on CPUs: 8 rows of SmolLM2 take .59 s in place of .005.
    """

    def cut(_head: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0][:, first:].contiguous()

    if head is None or first == 0:
        yield
        return
    hook = head.register_forward_pre_hook(cut)
    try:
        yield
    finally:
        hook.remove()
