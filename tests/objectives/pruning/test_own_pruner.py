"""A pruner of a user's own masks weights only where it says so, whatever its settings are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from objectives.devices.cpu import Cpu
from objectives.pruning.sparsegpt import SparseGpt
from objectives.pruning.wanda import Wanda
from objectives.runtime.openvino import OpenVino
from objectives.workloads.generation import Generation
from tests.objectives.runtimes import candidate, rounded


@dataclass(frozen=True)
class Striped:
    """Removes every other channel, say."""

    ratio: float = 0.5
    pattern: str = "every other"

    def prune_(self, model: Any, statistics: Any) -> None: ...
    def resize_fake_(self, model: Any, statistics: Any) -> None: ...
    def predict(self, statistics: Any) -> float:
        return 0.0


@dataclass(frozen=True)
class Zeroing(Striped):
    """Says that it masks."""

    @property
    def masks_weights(self) -> bool:
        return self.ratio > 0


@pytest.mark.parametrize(
    ("pruner", "masks"),
    [
        (Striped(), False),
        (Zeroing(), True),
        (Zeroing(ratio=0.0), False),
        (Wanda(ratio=0.5), True),
        (SparseGpt(ratio=0.5), True),
        (Wanda(), False),
    ],
)
def test_engines_refuse_what_says_that_it_masks(pruner: Any, masks: bool) -> None:
    asked = replace(candidate(rounded(8), OpenVino(), Generation()), pruning=pruner)
    said = OpenVino().supports(asked, "causal_lm", Cpu())
    assert said == ("masks are stored by no engine: their zeros would be multiplied" if masks else None)
