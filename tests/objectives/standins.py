"""Models that do nothing but what is planted in them: for tests of the measuring itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from objectives.models import LoadedModel
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Head

MB = 2**20
Plant = Callable[[], object]


def nothing() -> None:
    """Plants nothing."""


def asleep(seconds: float) -> Plant:
    """Sleep so long."""
    return lambda: time.sleep(seconds)


def bytes_for_a_moment(size: int, pieces: int = 1, rounds: int = 1) -> Plant:
    """Hold ``size`` bytes in so many pieces, and free them; so many times."""

    def run() -> None:
        for _ in range(rounds):
            held = [torch.empty(size // pieces, dtype=torch.uint8) for _ in range(pieces)]
            del held

    return run


class Layer(nn.Module):
    """Hands on what it is given."""

    def __init__(self, plant: Plant) -> None:
        super().__init__()
        self.plant = plant

    def forward(self, x: Tensor) -> Tensor:
        self.plant()
        return x


class Stub(nn.Module):
    """Answers at once, but for what is planted in its layer at prefill and at each decode step."""

    def __init__(self, prefill: Plant = nothing, decode: Plant = nothing) -> None:
        super().__init__()
        self.reading, self.writing = Layer(prefill), Layer(decode)
        self.config = SimpleNamespace(vocab_size=11)
        self.device = torch.device("cpu")

    def get_output_embeddings(self) -> None:
        """It has no head."""

    def forward(self, input_ids: Tensor, past_key_values: object = None, **_: Any) -> Any:
        layer = self.reading if past_key_values is None else self.writing
        layer(input_ids)
        answer = torch.zeros(len(input_ids), 1, 11)
        return SimpleNamespace(past_key_values="cache", logits=answer, last_hidden_state=answer)


def stub(prefill: Plant = nothing, decode: Plant = nothing, head: Head = "causal_lm") -> TorchRunner:
    """A stub as torch runs it."""
    return TorchRunner(LoadedModel(Stub(prefill, decode), None, head))
