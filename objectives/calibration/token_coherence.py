"""Measures by one backward pass what a known error of a block linear costs an encoder.

K-FAC takes the errors of a text's tokens as independent. A decoder answers once per token, where that holds well
enough; an encoder answers once per text, and there they add up: on MiniLM a removal costs 60 times what independent
tokens would make it in early blocks, 800 times in the last. Once it is known which error D a change makes,
the first order needs no such assumption: with g the gradient of a random projection of the embedding, the answer moves
by the sum over tokens of g^T D x. Costs from curvature keep their shape and take their scale from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from objectives.calibration.gradients import backpropagate, rows_of
from objectives.models.batch import Batch
from objectives.types import ENCODERS

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel


@dataclass
class Error:
    """A change of a linear's output for inputs x, and its cost: ``weight`` x + ``bias``, [out, in] and [out]."""

    weight: Tensor
    bias: Tensor | None = None
    cost: float = field(default=0.0, init=False)

    def take(self, inputs: Tensor, gradient: Tensor) -> None:
        """Add half the squared sum over each text of rows [texts, tokens, in] with gradients [texts, tokens, out].

        Experts read tokens and not texts: their rows [tokens, in] count one by one.
        """
        moved = inputs.float() @ self.weight.to(inputs.device).t()
        if self.bias is not None:
            moved += self.bias.to(inputs.device)
        self.cost += 0.5 * float((gradient.float() * moved).flatten(1).sum(dim=1).square().sum())


Errors = Mapping[tuple[str, str], Error]
"""Errors by (block name, path of the linear inside the block)."""


def errors_add_up(model: LoadedModel) -> bool:
    """Return whether the model answers once per text, so that the errors of its tokens add up."""
    return model.head in ENCODERS and model.head != "token_classifier"


def error_costs(model: LoadedModel, domains: Domains, errors: Errors) -> dict[tuple[str, str], float]:
    """Return each error's own cost, half the mean square of what it moves in an answer; domains weigh the same."""
    held = [batches for batches in domains.values() if batches]
    found = [_costs(model, rows_of(model, batches), errors) for batches in held]
    return {key: sum(domain[key] for domain in found) / max(1, len(found)) for key in errors}


def _costs(model: LoadedModel, batches: Sequence[Batch], errors: Errors) -> dict[tuple[str, str], float]:
    fresh = {key: Error(error.weight, error.bias) for key, error in errors.items()}
    with _watching(model, fresh):
        backpropagate(model, batches)
    texts = sum(len(batch) for batch in batches)
    return {key: error.cost / texts for key, error in fresh.items()}


@contextmanager
def _watching(model: LoadedModel, errors: Errors) -> Iterator[None]:
    def watch(error: Error) -> Callable[..., None]:
        def hook(_module: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            rows = inputs[0].detach()
            if output.requires_grad:
                output.register_hook(lambda gradient: error.take(rows, gradient))  # type: ignore[no-untyped-call]

        return hook

    handles = [
        model.block(block).linear(path).register_forward_hook(watch(error)) for (block, path), error in errors.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
