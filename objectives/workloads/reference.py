"""A small fixed workload, which tells the machine's pace.

It stands in for the baseline where memory cannot hold the baseline beside a candidate. It computes and it reads, as
models do, so that what slows the machine down slows it too.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import override

from objectives.protocols.running import PhaseObserver, Workload
from objectives.types import Head, Phase

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from objectives.protocols.running import Runner

_ROWS = 64


class ReferenceWorkload(Workload):
    """Computes ``times`` products of [64, size] with [size, size] in fp32.

    A ``size`` of 2048 is 16 MiB: larger than most caches, small beside any model; 512 stays in a core's own cache.
    """

    batch_size = items = 1
    tokens_read = _ROWS
    head: Head = "encoder"

    def __init__(self, device: torch.device | str, size: int = 2048, times: int = 4) -> None:
        self._device, self._size, self._times = device, size, times

    @cached_property
    def _matrix(self) -> Tensor:
        import torch

        return torch.randn(self._size, self._size, generator=torch.Generator().manual_seed(0)).to(self._device)

    @override
    def representative_runs(self) -> dict[Phase, ReferenceWorkload]:
        return {"encode": self}

    @override
    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """Compute the products; ``model`` is not touched."""
        rows = self._matrix[:_ROWS]
        watch.start(laps=1)
        for _ in range(self._times):
            rows @ self._matrix
        watch.end_phase("encode")
