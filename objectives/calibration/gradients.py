"""Collects, from one backward pass, how much an error at each block linear costs the model's output.

With g the gradient of the summed log-loss at a linear's output, a small error d there costs about d^T E[g g^T] d / 2
nats per token: the Fisher approximation of the curvature, with the second moment of the inputs the K-FAC of Martens
& Grosse, https://arxiv.org/abs/1503.05671. The loss is about the answers that the task reads: the tokens that are to be
written, the class, where an answer begins and ends. Tokens are drawn from the model itself, as the Fisher matrix asks.
A head with few classes needs no draw: with signs s_c at random, g of sum_c s_c sqrt(p_c) log p_c has the Fisher matrix
itself for its E[g g^T], however sure the model is.
A bare encoder has no log-loss: there the error is that of its mean-pooled, normalised embedding, and g is the
gradient of a random projection of it, whose E[g g^T] is the Gauss-Newton matrix of the squared distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from objectives.calibration.divergence import answer, logits_of
from objectives.calibration.moments import Domains, MomentSum, first_tokens
from objectives.models.batch import Batch, batch_of
from objectives.types import ENCODERS, Head

if TYPE_CHECKING:
    from objectives.models import LoadedModel

TOKENS: Mapping[Head, int] = {"causal_lm": 4096, "seq2seq": 4096, **dict.fromkeys(ENCODERS, 16384)}
"""Tokens of each domain: the curvature needs fewer rows than the moments. Encoders answer per text and need more."""


def collect_gradients(model: LoadedModel, domains: Domains) -> dict[tuple[str, str], Tensor]:
    """Return E[g g^T] [out, out], fp32, of every consumer's output, by (block, path); else its diagonal [out].

    Uses the first :data:`TOKENS` tokens of each domain; domains weigh the same. The average is over all tokens of the
    text, whether the linear read them or not: zero for an expert that read none. Deterministic.
    """
    found = [_collect_domain(model, rows_of(model, batches)) for batches in domains.values() if batches]
    keys = dict.fromkeys(key for domain in found for key in domain)
    sums = {key: torch.stack([domain[key] for domain in found if key in domain]).sum(0) / len(found) for key in keys}
    for block in model.blocks() if found else ():
        for unit in block.units:
            if unit.key not in sums:
                sums[unit.key] = torch.zeros(2 * (block.linear(unit.consumer).out_features,))
    return sums


def rows_of(model: LoadedModel, batches: Sequence[Tensor | Batch]) -> Sequence[Batch]:
    """Return the batches of one domain for which gradients are taken."""
    return [batch_of(batch) for batch in first_tokens(batches, TOKENS[model.head])]


def backpropagate(model: LoadedModel, batches: Sequence[Batch]) -> None:
    """Run ``batches`` forward and back from the answers' random projections; hooks on the blocks see the gradients."""
    generator = torch.Generator().manual_seed(0)
    signal = _SIGNALS.get(model.head, _projected_classes)
    with _from_the_first_block(model), torch.inference_mode(False), torch.enable_grad():
        for batch in batches:
            signal(model, batch.to(model.module.device), generator).backward()  # type: ignore[no-untyped-call]


def _collect_domain(model: LoadedModel, batches: Sequence[Batch]) -> dict[tuple[str, str], Tensor]:
    sums: dict[tuple[str, str], _Full | _Diagonal] = {}
    with _watching(model, sums):
        backpropagate(model, batches)
    tokens = sum(batch.numel() if model.head in ENCODERS else batch.answers for batch in batches)
    return {key: total.average(tokens) for key, total in sums.items()}


def _sampled_log_loss(model: LoadedModel, batch: Batch, generator: torch.Generator) -> Tensor:
    logits = logits_of(model, batch).float()
    return cross_entropy(logits, _drawn(logits.detach(), generator), reduction="sum")


def _projected_classes(model: LoadedModel, batch: Batch, generator: torch.Generator) -> Tensor:
    logs = logits_of(model, batch).float().log_softmax(dim=-1)
    signs = torch.randint(0, 2, logs.shape, generator=generator).to(logs.device) * 2 - 1
    return (signs * (logs.detach() / 2).exp() * logs).nan_to_num(0.0).sum()


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a label for every row by inverting the cumulative probability: ten times faster than torch.multinomial."""
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    level = torch.rand(len(logits), 1, generator=generator).to(logits.device) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, level).squeeze(1).clamp_max(logits.shape[-1] - 1)


def _projected_embedding(model: LoadedModel, batch: Batch, generator: torch.Generator) -> Tensor:
    pooled = answer(model, batch)
    return (pooled * torch.randn(pooled.shape, generator=generator).to(pooled.device)).sum()


_SIGNALS: Mapping[Head, Callable[[LoadedModel, Batch, torch.Generator], Tensor]] = {
    "causal_lm": _sampled_log_loss,
    "encoder": _projected_embedding,
    "seq2seq": _sampled_log_loss,
}


class _Full(MomentSum):
    """Accumulates E[g g^T]."""

    def average(self, tokens: int) -> Tensor:
        return (self.outer / tokens).cpu()


class _Diagonal:
    """Accumulates the diagonal of E[g g^T]."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.sum = torch.zeros(channels, device=device)

    def take(self, gradient: Tensor) -> None:
        rows = gradient.reshape(-1, gradient.shape[-1]).float()
        self.sum += rows.square().sum(dim=0)

    def average(self, tokens: int) -> Tensor:
        return (self.sum / tokens).cpu()


@contextmanager
def _watching(model: LoadedModel, sums: dict[tuple[str, str], _Full | _Diagonal]) -> Iterator[None]:
    def watch(key: tuple[str, str], kind: type[_Full | _Diagonal]) -> Callable[..., None]:
        def take(gradient: Tensor) -> None:  # a tensor hook that returned something would replace the gradient
            if key not in sums:
                sums[key] = kind(gradient.shape[-1], gradient.device)
            sums[key].take(gradient.detach())

        def hook(_module: object, _inputs: object, output: Tensor) -> None:
            if output.requires_grad:  # not that of position embeddings, which some linears read too
                output.register_hook(take)  # type: ignore[no-untyped-call]

        return hook

    handles = []
    for block in model.blocks():
        consumers = {unit.consumer for unit in block.units}
        for path in block.stack.block_linears:
            kind = _Full if path in consumers else _Diagonal
            handles.append(block.linear(path).register_forward_hook(watch((block.name, path), kind)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _from_the_first_block(model: LoadedModel) -> Iterator[None]:
    """Let autograd begin at the input of each stack's first block: no weight requires a gradient."""

    def begin(_module: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].detach().requires_grad_(), *inputs[1:])

    blocks = [model.block(f"{stack.layers}.0").module for stack in model.family.stacks]
    handles = [module.register_forward_pre_hook(begin) for module in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
