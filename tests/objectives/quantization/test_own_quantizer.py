"""A quantiser of a user's own says what it can: nothing is assumed of one that does not say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from objectives.devices.cpu import Cpu
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint
from objectives.protocols.candidate import Quantizer
from objectives.quantization.awq import Awq
from objectives.quantization.gptq import Gptq
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.onnxruntime import OnnxRuntime
from objectives.runtime.torch import Torch
from objectives.types import Scheme
from objectives.workloads.generation import Generation
from search.errors import ConfigError
from search.space.instantiate import build
from search.space.members import require_equality, require_members
from tests.objectives.runtimes import candidate, rounded
from tests.search.fakes import InstantTask


@dataclass(frozen=True)
class Silent:
    """Rounds as ours does, expects nothing, and stands alone."""

    bits: int = 8
    scheme: Scheme = "weight_only"
    embeddings: int = 16
    predicts: bool = False

    @property
    def stored(self) -> frozenset[int]:
        return frozenset({self.bits})

    def quantize_(self, model: Any, statistics: Any, device: Any) -> None:
        rounded(self.bits, scheme=self.scheme).quantize_(model, statistics, device)

    def resize_fake_(self, model: Any, statistics: Any, device: Any) -> None:
        rounded(self.bits, scheme=self.scheme).resize_fake_(model, statistics, device)

    def predict(self, statistics: Any) -> float:
        raise AssertionError("it said that it is not to be asked")


class Vague:
    """As a quantiser was written before it had to say more than its bits."""

    bits = 8
    stored = frozenset({8})
    quantize_ = resize_fake_ = Silent.quantize_
    predict = Silent.predict


@dataclass(frozen=True)
class Based(Quantizer):
    """Names the protocol as its base, and leaves out the scheme."""

    bits: int = 8
    embeddings: int = 16
    predicts: bool = False
    stored: Any = frozenset({8})
    quantize_ = resize_fake_ = Silent.quantize_
    predict = Silent.predict


def test_one_that_does_not_predict_is_not_asked_to(tiny_folder: Callable[[str], Path]) -> None:
    silent = Silent()
    require_members(silent, "quantization", "quantization", Quantizer)
    require_equality(silent, "quantization")
    baseline = candidate(rounded(16), Torch(), Generation(batch_size=1, prompt_tokens=2, new_tokens=2))
    model = Checkpoint(path=str(tiny_folder("llama")), head="causal_lm")
    evaluator = Evaluator(Problem(model, InstantTask(), Cpu(threads=1), Interleaved(), baseline))
    found = evaluator.predict(replace(baseline, quantization=silent))
    assert "predicted_loss" not in found
    assert found["predicted_peak"] > 0
    assert "predicted_loss" in evaluator.predict(replace(baseline, quantization=RoundToNearest(bits=8)))
    assert Mixed().predicts


def test_an_engine_goes_by_what_it_says() -> None:
    asked = candidate(Silent(), OnnxRuntime(), Generation())
    assert "round activations as well" in str(OnnxRuntime().supports(asked, "causal_lm", Cpu()))
    both = replace(asked, quantization=Silent(scheme="w8a8"))
    assert OnnxRuntime().supports(both, "causal_lm", Cpu()) is None
    assert "embeddings have 16 or 8 bits" in str(
        Torch().supports(replace(asked, quantization=Silent(embeddings=4)), "causal_lm", Cpu())
    )


@dataclass(frozen=True)
class Shifted(Silent):
    """Has settings that are called as ours are, and mean something else."""

    zero: float = 0.25
    rounding: str = "stochastic"


def test_an_engine_leaves_the_settings_of_ones_own_quantiser_alone() -> None:
    own = Shifted(scheme="w8a8")
    assert OnnxRuntime().storage(own) is own
    mixed = Mixed(bits=5.0, rounding=_Plain())
    assert OnnxRuntime().storage(mixed) == Mixed(bits=5.0, rounding=_Plain(), scheme="weight_only")


@dataclass(frozen=True)
class _Plain:
    """A rounding of one's own, whose zero is a number."""

    group_size: int = 64
    zero: float = 0.25

    def round(self, weight: Any, moment: Any, bits: int, group_size: int) -> Any: ...


@pytest.mark.parametrize("kind", [Gptq, Awq, RoundToNearest])
def test_ours_are_stored_with_whole_zeros_and_activations_left_alone(kind: Any) -> None:
    assert OnnxRuntime().storage(kind(bits=4)) == kind(bits=4, zero="whole", scheme="weight_only")
    whole = Mixed(bits=5.0, rounding=kind(zero="whole"), scheme="weight_only")
    assert OnnxRuntime().storage(Mixed(bits=5.0, rounding=kind())) == whole


def test_one_that_does_not_say_is_refused_in_a_line_that_names_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"it has no embeddings; no predicts; no scheme .*: Quantizer"):
        require_members(Vague(), "quantization", "quantization", Quantizer)
    with pytest.raises(ConfigError, match=r"quantization: Can't instantiate abstract class Based .*scheme"):
        build({"_target_": f"{__name__}.Based"}, "quantization", (f"{__name__}.",))
