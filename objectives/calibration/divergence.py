"""Measures how far a model's answers are from the dense model's, on the same rows.

For models with logits: the Kullback-Leibler divergence KL(dense || model), nats per answer that the task reads; of a
model that writes text its expectation is the log-loss lost on text that the dense model itself would write. For bare
encoders: half the squared distance of the mean-pooled, normalised embeddings, the unit of
:mod:`objectives.calibration.gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from objectives.models.batch import Batch, batch_of
from objectives.models.heads import encoded
from objectives.types import ENCODERS, Head

if TYPE_CHECKING:
    from objectives.models import LoadedModel


def divergence_from(dense: LoadedModel, batches: Sequence[Tensor | Batch]) -> Callable[[LoadedModel], float]:
    """Return a function that measures how far a model is from ``dense`` on ``batches``; batches weigh the same."""
    with torch.inference_mode():
        references = [answer(dense, batch) for batch in batches]

    @torch.inference_mode()
    def divergence(model: LoadedModel) -> float:
        distances = [distance(model.head, reference, answer(model, ids)) for reference, ids in zip(references, batches)]
        return float(sum(distances)) / len(distances)

    return divergence


def answer(model: LoadedModel, batch: Tensor | Batch) -> Tensor:
    """Return the answers that the task reads: logits [answers, classes], or of a bare encoder embeddings [rows, width].

    The classes of a span are its tokens: two answers a row, its beginning and its end.
    """
    rows = batch_of(batch).to(model.module.device)
    if model.head == "encoder":
        return normalize(model.module(**model.inputs(rows)).last_hidden_state.float().mean(dim=1), dim=1)
    return logits_of(model, rows)


def logits_of(model: LoadedModel, batch: Batch) -> Tensor:
    """Return the logits [answers, classes] of a model that has some, where ``batch`` is."""
    if model.head not in ENCODERS:
        logits: Tensor = model.module(**model.inputs(batch), use_cache=False).logits
        return _read(logits, batch.scored)
    logits = encoded(model.head, model.module(**model.inputs(batch)))
    if model.head == "question_answering":
        spans = logits if batch.scored is None else logits.masked_fill(~batch.scored.unsqueeze(2), -torch.inf)
        return spans.transpose(1, 2).flatten(0, 1)
    return logits if model.head == "classifier" else _read(logits, batch.scored)


def _read(logits: Tensor, scored: Tensor | None) -> Tensor:
    return logits.flatten(0, 1) if scored is None else logits[scored]


def distance(head: Head, dense: Tensor, other: Tensor) -> Tensor:
    """Return the distance of two answers, a scalar; differentiable in ``other``."""
    return _half_squared_distance(dense, other) if head == "encoder" else _kullback_leibler(dense, other)


def _kullback_leibler(dense: Tensor, other: Tensor) -> Tensor:
    wanted, got = (_finite(logits.float().log_softmax(dim=1)) for logits in (dense, other))
    return kl_div(got, wanted, reduction="batchmean", log_target=True)


def _finite(logs: Tensor) -> Tensor:
    """Return log-probabilities with a finite number where nothing is possible: 0 times infinity is no number."""
    return logs.clamp_min(-1e4)


def _half_squared_distance(dense: Tensor, other: Tensor) -> Tensor:
    return 0.5 * (dense - other).square().sum(dim=1).mean()
