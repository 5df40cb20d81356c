"""What every recovery of ``conf/recovery`` promises, and what distillation wins back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from objectives.calibration.divergence import divergence_from
from objectives.calibration.moments import sample_rows
from objectives.calibration.statistics import Statistics
from objectives.models import LoadedModel
from objectives.pruning.structured import Structured
from objectives.recovery import distillation
from objectives.recovery.distillation import Distillation
from tests.objectives.conftest import Tiny
from tests.objectives.families import each_core_family, each_family
from tests.objectives.recipes import built, choices

Collected = Callable[[str], Statistics]
each_recovery = pytest.mark.parametrize("choice", choices("recovery"))


def recovery(choice: str) -> object:
    """As its yaml says, where it takes a budget two steps of it."""
    return built("recovery", choice, **({"steps": 2} if choice != "off" else {}))


@pytest.fixture
def pruned(tiny: Tiny, statistics: Collected) -> Callable[[str], LoadedModel]:
    def of(family: str, ratio: float = 0.5) -> LoadedModel:
        model = tiny(family).copy()
        Structured(ratio=ratio).prune_(model, statistics(family))
        return model

    return of


def tensors(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


@each_recovery
@each_family
def test_only_values_change(
    pruned: Callable[[str], LoadedModel], statistics: Collected, choice: str, family: str
) -> None:
    model, before = pruned(family), tensors(pruned(family))
    recovery(choice).recover_(model, statistics(family))  # type: ignore[attr-defined]
    after = tensors(model)
    assert {n: (t.shape, t.dtype) for n, t in after.items()} == {n: (t.shape, t.dtype) for n, t in before.items()}
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert not any(module._forward_hooks for module in model.module.modules())
    linears = {f"{block.name}.{path}" for block in model.blocks() for path in block.stack.block_linears}
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert all(any(linear in name for linear in linears) for name in changed)


@each_recovery
@each_core_family
def test_an_unpruned_model_stays_as_it_is(tiny: Tiny, statistics: Collected, choice: str, family: str) -> None:
    model = tiny(family).copy()
    recovery(choice).recover_(model, statistics(family))  # type: ignore[attr-defined]
    assert all(torch.equal(tensor, model.module.state_dict()[name]) for name, tensor in tensors(tiny(family)).items())


@each_family
def test_distillation_brings_the_model_back_towards_the_dense_one(
    pruned: Callable[[str], LoadedModel], tiny: Tiny, statistics: Collected, family: str
) -> None:
    divergence = divergence_from(tiny(family), sample_rows(statistics(family).domains, 256))
    model = pruned(family)
    before = divergence(model)
    Distillation(steps=24, rate=3e-3, tokens=128).recover_(model, statistics(family))
    assert divergence(model) < 0.7 * before


def test_steps_give_the_same_model_every_time(pruned: Callable[[str], LoadedModel], statistics: Collected) -> None:
    models = [pruned("llama"), pruned("llama")]
    for model in models:
        Distillation(steps=3).recover_(model, statistics("llama"))
    one, other = (model.module.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_seconds_change_nothing(pruned: Callable[[str], LoadedModel], statistics: Collected) -> None:
    model = pruned("llama")
    predicted = model.predicted_loss
    Distillation(seconds=0.0).recover_(model, statistics("llama"))
    assert model.predicted_loss == predicted
    assert all(torch.equal(t, model.module.state_dict()[name]) for name, t in tensors(pruned("llama")).items())


def test_the_budget_is_kept_by_stopping_before_a_step_that_would_pass_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(distillation.time, "monotonic", lambda: clock[0])
    seen = []
    for progress in Distillation(seconds=10.0)._progress():
        seen.append(progress)
        clock[0] += 3.0
    assert seen == [0.0, 0.3, 0.6]
    assert list(Distillation(steps=4)._progress()) == [0.0, 0.25, 0.5, 0.75]


def test_domains_take_turns_and_every_row_comes_once_per_pass() -> None:
    domains = {"a": [torch.arange(10).view(5, 2)], "b": [torch.arange(100, 108).view(2, 4)]}
    batches = distillation._batches(domains, 4)
    taken = [next(batches).ids for _ in range(6)]
    assert [int(batch[0, 0]) >= 100 for batch in taken] == [False, True] * 3
    assert sorted(torch.cat(taken[::2]).flatten().tolist()) == list(range(10))
    assert sorted(torch.cat(taken[1::2][:2]).flatten().tolist()) == list(range(100, 108))


def test_that_a_masked_model_is_not_trained_is_noted(tiny: Tiny, statistics: Collected) -> None:
    model = tiny("llama").copy()
    built("pruning", "wanda", ratio=0.5).prune_(model, statistics("llama"))
    Distillation(steps=2).recover_(model, statistics("llama"))
    assert "masked" in model.notes[0].text
