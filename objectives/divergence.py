"""How far a model's answers are from the dense model's, on the same rows.

For models that write text: the Kullback-Leibler divergence KL(dense || model), nats per token, whose expectation is
the log-loss lost on text that the dense model itself would write. For encoders: half the squared distance of the
mean-pooled, normalised embeddings, the unit of :mod:`objectives.gradients`.
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

_ROWS_AT_ONCE = 512  # of logits widened to fp32


def divergence_from(dense: LoadedModel, batches: Sequence[Tensor]) -> Callable[[LoadedModel], float]:
    """A function that says how far another model is from ``dense`` on ``batches``; batches weigh the same."""
    references = [answer(dense, batch) for batch in batches]

    def divergence(model: LoadedModel) -> float:
        distance = _DISTANCES[model.head]
        losses = [distance(reference, answer(model, batch)) for reference, batch in zip(references, batches)]
        return sum(losses) / len(losses)

    return divergence


@torch.inference_mode()
def answer(model: LoadedModel, ids: Tensor) -> Tensor:
    """Logits [rows * tokens, vocabulary] in the model's precision, or an encoder's embeddings [rows, width]."""
    device = model.module.device
    if model.head == "encoder":
        states = model.module(**model.inputs(ids.to(device))).last_hidden_state
        return normalize(states.float().mean(dim=1), dim=1)
    logits: Tensor = model.module(**model.inputs(ids.to(device)), use_cache=False).logits
    return logits.flatten(0, 1)


@torch.inference_mode()
def _kullback_leibler(dense: Tensor, other: Tensor) -> float:
    total = 0.0
    for there, here in zip(torch.split(dense, _ROWS_AT_ONCE), torch.split(other, _ROWS_AT_ONCE)):
        wanted, got = there.float().log_softmax(dim=1), here.float().log_softmax(dim=1)
        total += float(kl_div(got, wanted, reduction="sum", log_target=True))
    return total / len(dense)


def _half_squared_distance(dense: Tensor, other: Tensor) -> float:
    return 0.5 * float((dense - other).square().sum(dim=1).mean())


_DISTANCES: dict[Head, Callable[[Tensor, Tensor], float]] = {
    "causal_lm": _kullback_leibler,
    "encoder": _half_squared_distance,
    "seq2seq": _kullback_leibler,
}
