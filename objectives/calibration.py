"""One walk over the dense model, from which every ratio and bit width is computed.

For each linear that something is decided about, the walk keeps the mean and the second moment of its input
over all calibration tokens. Pruning scores, least-squares reconstruction and weighted rounding need nothing
else, so a study calibrates once. Linears that read the same tensor (query, key and value) share one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from objectives.models import LoadedModel


@dataclass(frozen=True)
class Moment:
    """Statistics of a linear's input x with k channels: E[x] as [k], E[x x^T] as [k, k], fp32."""

    mean: Tensor
    second: Tensor

    def select(self, channels: Tensor) -> Moment:
        """The moment of the kept channels."""
        return Moment(self.mean[channels], self.second[channels][:, channels])


Moments = Mapping[tuple[str, str], Moment]
"""By (block name, path of the linear inside the block)."""


class MomentSum:
    """Accumulates a :class:`Moment`: take batches, then solve."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.sum = torch.zeros(channels, device=device)
        self.outer = torch.zeros(channels, channels, device=device)

    def take(self, inputs: Tensor) -> None:
        """Add ``inputs`` [..., k]."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        self.count += rows.shape[0]
        self.sum += rows.sum(dim=0)
        self.outer.addmm_(rows.t(), rows)

    def moment(self) -> Moment:
        """The averages over everything taken, on the CPU, where models are compressed."""
        return Moment((self.sum / self.count).cpu(), (self.outer / self.count).cpu())


def collect_moments(model: LoadedModel, batches: Sequence[Tensor]) -> dict[tuple[str, str], Moment]:
    """Run ``batches`` (token ids [rows, tokens]) through ``model`` and keep all block inputs' moments."""
    sums: dict[tuple[str, ...], MomentSum] = {}
    with _watching(model, sums), torch.inference_mode():
        for batch in batches:
            model.module.base_model(input_ids=batch.to(model.module.device))
    moments: dict[tuple[str, str], Moment] = {}
    for (block, *paths), total in sums.items():
        moment = total.moment()
        moments.update({(block, path): moment for path in paths})
    return moments


@contextmanager
def _watching(model: LoadedModel, sums: dict[tuple[str, ...], MomentSum]) -> Iterator[None]:
    def watch(key: tuple[str, ...]) -> Any:
        def hook(_module: object, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            if key not in sums:
                sums[key] = MomentSum(x.shape[-1], x.device)
            sums[key].take(x)

        return hook

    handles = [
        block.module.get_submodule(paths[0]).register_forward_pre_hook(watch((block.name, *paths)))
        for block in model.blocks()
        for paths in block.family.shared_inputs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
