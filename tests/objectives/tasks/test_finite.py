"""What is not a number never passes for a score, whoever made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from objectives.errors import NotFinite, Unsupported
from objectives.protocols.corpus import Document
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.domains import Domains
from objectives.tasks.finite import checked, not_finite, number
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval
from objectives.types import Score
from tests.conftest import head_of
from tests.objectives.conftest import Tiny

GOOD = Score(0.5, 0.1, (0.0, 1.0), {"perplexity": 3.0})
WEIGHTS = {
    "bert": "encoder.layer.1.output.dense.weight",
    "roberta": "encoder.layer.0.attention.self.value.bias",
    "electra": "embeddings.word_embeddings.weight",
    "llama": "model.layers.1.mlp.down_proj.weight",
    "gpt2": "transformer.h.0.ln_1.weight",
    "qwen2": "model.norm.weight",
}


@dataclass(frozen=True)
class Pairs:
    def documents(self) -> Sequence[Document]:
        return [Document(str(i), f"the name of {i} is a long list of words {i}", f"name {i}") for i in range(24)]


def task_of(family: str) -> Any:
    if head_of(family) == "encoder":
        return Retrieval(corpus=Pairs(), pool=24, calibration_pairs=8, tokens=16)
    return LanguageModeling(corpus=Pairs(), documents=4, calibration_documents=4, tokens=16)


@pytest.fixture
def damaged(tiny: Tiny) -> Callable[[str, float], TorchRunner]:
    """A tiny model of which one weight is not a number."""

    def made(family: str, value: float) -> TorchRunner:
        model = tiny(family).copy()
        model.module.get_parameter(WEIGHTS[family]).data.view(-1)[3] = value
        return TorchRunner(model)

    return made


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("family", WEIGHTS)
def test_a_weight_that_is_no_number_gives_no_accuracy_and_is_named(
    damaged: Callable[[str, float], TorchRunner], family: str, value: float
) -> None:
    model = damaged(family, value)
    score = task_of(family).evaluate(model)
    with pytest.raises(NotFinite, match=r"^accuracy.* not finite: the model's .* holds NaN or infinity$") as caught:
        checked(score, model)
    assert WEIGHTS[family] in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_neither_does_a_domain_of_several(damaged: Callable[[str, float], TorchRunner], family: str) -> None:
    task = Domains(served={"a": task_of(family), "b": task_of(family)})
    assert math.isnan(task.evaluate(damaged(family, math.nan)).accuracy)


@pytest.mark.parametrize("metric", ["next_token_accuracy", "inverse_perplexity"])
def test_sound_models_have_sound_scores_and_say_what_guessing_gives(tiny: Tiny, metric: Any) -> None:
    task = replace(task_of("llama"), metric=metric)
    runner, encoder = TorchRunner(tiny("llama")), TorchRunner(tiny("bert"))
    score = checked(task.evaluate(runner), runner)
    assert score.chance is not None
    assert 0 < score.chance < 1
    assert checked(task_of("bert").evaluate(encoder), encoder).chance == pytest.approx(1 / 24)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan"), torch.tensor(math.inf)])
@pytest.mark.parametrize(
    ("field", "named"),
    [("accuracy", "accuracy"), ("stderr", "standard error"), ("examples", "1 of 2"), ("extra", "loss")],
)
def test_every_number_of_a_score_is_looked_at(tiny: Tiny, field: str, named: str, value: Any) -> None:
    given = {"examples": (0.5, value), "extra": {"loss": value}}.get(field, value)
    with pytest.raises(NotFinite, match=named):
        checked(replace(GOOD, **{field: given}), TorchRunner(tiny("llama")))


@pytest.mark.parametrize("value", [None, True, "0.5", [0.5], 1 + 0j, 1.2, 73.0, -0.1, np.array([0.5, 0.5])])
def test_what_is_no_accuracy_is_refused(tiny: Tiny, value: Any) -> None:
    with pytest.raises(Unsupported, match=r"^task: "):
        checked(replace(GOOD, accuracy=value), TorchRunner(tiny("llama")))


@pytest.mark.parametrize("score", [0.5, None, {"accuracy": 0.5}, (0.5, 0.1)])
def test_what_is_no_score_is_refused(tiny: Tiny, score: Any) -> None:
    with pytest.raises(Unsupported, match="evaluate must return a Score, got "):
        checked(score, TorchRunner(tiny("llama")))


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5), 1, 1.0 + 1e-12])
def test_scalars_of_other_kinds_become_floats(tiny: Tiny, value: Any) -> None:
    found = checked(replace(GOOD, accuracy=value), TorchRunner(tiny("llama"))).accuracy
    assert type(found) is float
    assert 0.5 <= found <= 1.0


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (math.nan, r"^task: 2 of 100 replicates not finite: give the metric a value, such as 0, where a resample"),
        (-0.1, r"^task: replicates of an accuracy lie in \[0, 1\], got -0.1$"),
        (34.5, r"^task: replicates of an accuracy lie in \[0, 1\], got 34.5; are they in percent\?$"),
        (None, "a score's replicate must be a number, got None"),
    ],
)
def test_replicates_that_are_no_accuracies_are_refused(tiny: Tiny, odd: Any, words: str) -> None:
    runner = TorchRunner(tiny("llama"))
    with pytest.raises(Unsupported, match=words):
        checked(replace(GOOD, replicates=(odd, *[0.5] * 98, odd)), runner)
    kept = checked(replace(GOOD, replicates=(1 + 1e-12, np.float64(0.5), -1e-12)), runner).replicates
    assert kept == (1.0, 0.5, 0.0)
    assert {type(value) for value in kept} == {float}


def test_numbers_are_told_from_what_only_looks_like_them() -> None:
    assert [number(value) for value in (2, np.int64(2), None, False, np.bool_(True), "2")] == [2.0, 2.0, *[None] * 4]
    assert not_finite({"a": 1.0, "b": None, "c": math.inf, "d": np.float32(1)}) == ["b", "c"]


def test_a_text_with_a_token_that_has_no_row_is_refused_by_its_name(tiny: Tiny) -> None:
    model = tiny("bert").copy()
    model.module.config.vocab_size = 20
    with pytest.raises(Unsupported, match=r"a text holds the token '.' \(id \d+\), the model embeds 20 tokens"):
        task_of("bert").evaluate(TorchRunner(model))
