"""A small fixed workload that stands in for the baseline where memory cannot hold it beside a candidate.

It computes and it reads, as models do, so that what slows the machine down slows it too.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from objectives.types import Head, Phase, Watch

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.models import LoadedModel

_SIZE, _ROWS, _TIMES = 2048, 64, 4


class Sentinel:
    """Products of [64, 2048] with a matrix of 16 MiB, in fp32: larger than most caches, small beside any model."""

    batch_size = items = 1
    tokens_read = _ROWS
    head: Head = "encoder"

    def __init__(self, device: str) -> None:
        self._device = device

    @cached_property
    def _matrix(self) -> Tensor:
        import torch

        return torch.randn(_SIZE, _SIZE, generator=torch.Generator().manual_seed(0)).to(self._device)

    def excerpts(self) -> dict[Phase, Sentinel]:
        """See ``objectives.types.Workload``."""
        return {"encode": self}

    def run(self, model: LoadedModel, watch: Watch) -> None:
        """See ``objectives.types.Workload``; ``model`` is not touched."""
        rows = self._matrix[:_ROWS]
        watch.start(laps=1)
        for _ in range(_TIMES):
            rows @ self._matrix
        watch.lap("encode")
