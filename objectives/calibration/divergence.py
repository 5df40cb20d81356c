"""Measures how far a model's answers are from the dense model's, on the same rows.

For models that write text: the Kullback-Leibler divergence KL(dense || model), nats per token, whose expectation is
the log-loss lost on text that the dense model itself would write. For encoders: half the squared distance of the
mean-pooled, normalised embeddings, the unit of :mod:`objectives.calibration.gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize

if TYPE_CHECKING:
    from objectives.models import LoadedModel
    from objectives.types import Head


def divergence_from(dense: LoadedModel, batches: Sequence[Tensor]) -> Callable[[LoadedModel], float]:
    """Return a function that measures how far a model is from ``dense`` on ``batches``; batches weigh the same."""
    with torch.inference_mode():
        references = [answer(dense, batch) for batch in batches]

    @torch.inference_mode()
    def divergence(model: LoadedModel) -> float:
        distances = [distance(model.head, reference, answer(model, ids)) for reference, ids in zip(references, batches)]
        return float(sum(distances)) / len(distances)

    return divergence


def answer(model: LoadedModel, ids: Tensor) -> Tensor:
    """Return the answer to ``ids`` [rows, tokens]: logits [rows * tokens, vocabulary], or embeddings [rows, width]."""
    inputs = model.inputs(ids.to(model.module.device))
    if model.head == "encoder":
        return normalize(model.module(**inputs).last_hidden_state.float().mean(dim=1), dim=1)
    logits: Tensor = model.module(**inputs, use_cache=False).logits
    return logits.flatten(0, 1)


def distance(head: Head, dense: Tensor, other: Tensor) -> Tensor:
    """Return the distance of two answers, a scalar; differentiable in ``other``."""
    return _DISTANCES[head](dense, other)


def _kullback_leibler(dense: Tensor, other: Tensor) -> Tensor:
    wanted, got = dense.float().log_softmax(dim=1), other.float().log_softmax(dim=1)
    return kl_div(got, wanted, reduction="batchmean", log_target=True)


def _half_squared_distance(dense: Tensor, other: Tensor) -> Tensor:
    return 0.5 * (dense - other).square().sum(dim=1).mean()


_DISTANCES: dict[Head, Callable[[Tensor, Tensor], Tensor]] = {
    "causal_lm": _kullback_leibler,
    "encoder": _half_squared_distance,
    "seq2seq": _kullback_leibler,
}
