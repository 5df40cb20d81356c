"""First and second moments of what linears read, gathered in one walk over the calibration rows.

Every domain weighs the same, however many rows it has: moments of one domain alone make a reconstruction that loses
twice as much in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from objectives.errors import Unsupported
from objectives.models.batch import Batch, batch_of, joined

if TYPE_CHECKING:
    from objectives.models import LoadedModel

Domains = Mapping[str, Sequence[Tensor | Batch]]
"""Batches without padding by domain: token ids (int64, [rows, tokens]), or a :class:`Batch` that knows more."""


@dataclass(frozen=True)
class Moment:
    """Statistics of a linear's input x with k channels: E[x] as [k], E[x x^T] as [k, k], fp32."""

    mean: Tensor
    second: Tensor
    share: float = 1.0
    """Rows that the linear read, per token of the calibration text; below 1 for an expert, 0 where it read none."""

    @staticmethod
    def unread(channels: int) -> Moment:
        """Return the moment of a linear that no calibration row has reached: its channels are alike and independent."""
        return Moment(torch.zeros(channels), torch.eye(channels), 0.0)

    def select(self, channels: Tensor) -> Moment:
        """Return the moment of ``channels`` alone."""
        return Moment(self.mean[channels], self.second[channels][:, channels], self.share)

    @property
    def centred(self) -> Tensor:
        """Return the covariance [k, k]: what a layer with a bias has to reproduce."""
        return self.second - torch.outer(self.mean, self.mean)


Moments = Mapping[tuple[str, str], Moment]
"""Moments by (block name, path of the linear inside the block)."""


class MomentSum:
    """Accumulates a :class:`Moment`: take batches, then solve."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.reads_texts = True
        self.sum = torch.zeros(channels, device=device)
        self.outer = torch.zeros(channels, channels, device=device)

    def take(self, inputs: Tensor) -> None:
        """Add ``inputs`` [..., k]; an expert reads tokens [tokens, k] and no texts [rows, tokens, k]."""
        self.reads_texts &= inputs.dim() > 2
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        self.count += rows.shape[0]
        self.sum += rows.sum(dim=0)
        self.outer.addmm_(rows.t(), rows)

    def moment(self, tokens: int) -> Moment:
        """Return the averages over all that was taken, on the CPU; ``tokens``: how many the text has."""
        share = 1.0 if self.reads_texts else self.count / tokens
        return Moment((self.sum / self.count).cpu(), (self.outer / self.count).cpu(), share)


def collect_moments(model: LoadedModel, domains: Domains) -> dict[tuple[str, str], Moment]:
    """Run all batches through ``model`` and return the moments; domains are averaged equally.

    For an expert, a domain weighs the share of its tokens that the expert read; an expert that read none gets
    :meth:`Moment.unread`. Raises Unsupported where the domains have no rows.
    """
    found = [_collect_domain(model, batches) for batches in domains.values() if batches]
    if domains and not found:
        raise Unsupported("calibration: at least one row expected, the task gave none")
    moments: dict[tuple[str, str], Moment] = {}
    for block, *paths in dict.fromkeys(key for domain in found for key in domain):
        parts = [domain[block, *paths] for domain in found if (block, *paths) in domain]  # some see no text of one
        shares = [part.share for part in parts]
        means = mean_over_domains([part.mean for part in parts], shares)
        seconds = mean_over_domains([part.second for part in parts], shares)
        moment = Moment(means, seconds, sum(shares) / len(found))
        moments.update({(block, path): moment for path in paths})
    for one in model.blocks() if found else ():
        for path in one.stack.block_linears:
            moments.setdefault((one.name, path), Moment.unread(one.linear(path).in_features))
    return moments


def sample_rows(domains: Domains, tokens: int) -> list[Batch]:
    """Return rows of each domain's commonest length, a batch of them: about ``tokens`` tokens in all, at least one row.

    Rows with targets seldom share both lengths: those of further lengths follow, until there are as many tokens.
    """
    found = []
    for batches in map(list, domains.values()):
        left = tokens // len(domains)
        lengths = Counter[tuple[int, ...]]()
        for batch in map(batch_of, batches):
            lengths[batch.lengths] += batch.numel()
        may_go_on = any(isinstance(batch, Batch) for batch in batches)
        for common, _ in lengths.most_common(None if may_go_on else 1):
            rows = [row for batch in map(batch_of, batches) if batch.lengths == common for row in batch]
            found.append(joined(rows[: max(1, left // common[0])]))
            left -= found[-1].numel()
            if left <= 0:
                break
    return found


def first_tokens(batches: Sequence[Tensor | Batch], tokens: int) -> Sequence[Tensor | Batch]:
    """Return the first batches, as many as it takes to hold ``tokens`` tokens."""
    taken, seen = [], 0
    for batch in batches:
        if seen >= tokens:
            break
        taken.append(batch)
        seen += batch.numel()
    return taken


def mean_over_domains(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the average of several domains' ``parts``, of one shape, each weighing its share."""
    weights = [share / max(shares) for share in shares]
    weighted = [part if weight == 1.0 else part * weight for part, weight in zip(parts, weights, strict=True)]
    return sum(weighted[1:], weighted[0]) / sum(weights)


def _collect_domain(model: LoadedModel, batches: Sequence[Tensor | Batch]) -> dict[tuple[str, ...], Moment]:
    sums: dict[tuple[str, ...], MomentSum] = {}
    with _watching(model, sums), torch.inference_mode():
        for batch in batches:
            model.module.base_model(**model.inputs(batch.to(model.module.device)))
    tokens = sum(batch.numel() for batch in batches)
    return {key: total.moment(tokens) for key, total in sums.items()}


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
        for paths in block.stack.shared_inputs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
