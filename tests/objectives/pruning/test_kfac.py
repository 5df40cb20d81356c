"""The removal curve against the least-squares problem it stands for, and gradients against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from objectives.calibration.gradients import collect_gradients
from objectives.calibration.statistics import Statistics
from objectives.models import LoadedModel
from objectives.pruning.criteria.kfac import root
from objectives.pruning.removal import removal
from tests.objectives.conftest import Tiny
from tests.objectives.families import answer, each_family


def problem(seed: int = 0, out: int = 6, width: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """W [out, k], H [k, k], G [out, out] of correlated inputs and gradients."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator)
    rows = torch.randn(200, width, generator=generator) @ mix
    gradients = torch.randn(50, out, generator=generator)
    return torch.randn(out, width, generator=generator), rows.t() @ rows / 200, gradients.t() @ gradients / 50


def least_loss(weight: Tensor, second: Tensor, gradient: Tensor, kept: Tensor) -> float:
    """1/2 min over W' of tr(G D H D^T), D = W - W' on the kept channels, in fp64."""
    weight, second, gradient = weight.double(), second.double(), gradient.double()
    solved = weight @ second[:, kept] @ torch.linalg.inv(second[kept][:, kept])
    difference = weight.clone()
    difference[:, kept] -= solved
    return 0.5 * (gradient @ difference @ second @ difference.t()).trace().item()


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_losses_are_those_of_the_best_reconstruction(seed: int, width: int) -> None:
    weight, second, gradient = problem(seed)
    sets = 12 // width
    order, losses = removal(root(gradient) @ weight, second, width, tuple(range(sets)), damping=1e-9)
    assert sorted(order.tolist()) == sorted(set(order.tolist()))
    for count in range(sets):
        gone = {int(each) * width + i for each in order[:count] for i in range(width)}
        kept = torch.tensor([channel for channel in range(12) if channel not in gone])
        assert losses[count] == pytest.approx(least_loss(weight, second, gradient, kept), rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("width", [1, 3])
def test_the_first_set_to_go_is_the_cheapest(width: int) -> None:
    weight, second, gradient = problem(5)
    order, _ = removal(root(gradient) @ weight, second, width, (0, 1), damping=1e-9)

    def without(gone: int) -> Tensor:
        return torch.tensor([channel for channel in range(12) if channel // width != gone])

    costs = [least_loss(weight, second, gradient, without(each)) for each in range(12 // width)]
    assert order.item() == costs.index(min(costs))


def test_a_twin_becomes_dear_once_the_other_is_gone() -> None:
    """Two equal inputs: either costs nothing, both cost much. Scores without update would drop both."""
    weight, second, gradient = problem(6)
    second = torch.eye(12)
    second[0, 1] = second[1, 0] = 0.9999
    order, losses = removal(root(gradient) @ weight, second, 1, (0, 1, 2, 3), damping=1e-9)
    assert len({0, 1} & set(order[:2].tolist())) == 1
    assert losses[1] < 1e-3 * losses[3]


@each_family
def test_every_linear_of_every_stack_gets_a_gradient(statistics: Callable[[str], Statistics], family: str) -> None:
    found = statistics(family)
    assert found.gradients.keys() == found.moments.keys()
    for block in found.model.blocks():
        consumers = {unit.consumer for unit in block.units}
        for path in block.stack.block_linears:
            outputs, gradient = block.linear(path).out_features, found.gradients[block.name, path]
            assert gradient.shape == ((outputs, outputs) if path in consumers else (outputs,))
            assert gradient.abs().sum() > 0


@pytest.mark.parametrize("family", ["llama", "bert", "marian"])
def test_gradients_predict_what_a_small_error_costs(tiny: Tiny, family: str) -> None:
    """Fisher against the true curvature: KL of the outputs when noise is added at one linear's output."""
    model = tiny(family).copy()
    model.module.float()
    ids = torch.randint(2, 128, (16, 24), generator=torch.Generator().manual_seed(7))
    for unit in (unit for stack in model.family.stacks for unit in model.block(f"{stack.layers}.0").units):
        gradient = collect_gradients(model, {"random": [ids] * 8})[unit.key]
        noise = 1e-3 * torch.randn(len(gradient), generator=torch.Generator().manual_seed(8))
        predicted = 0.5 * (noise @ gradient @ noise).item()
        assert cost(model, model.block(unit.block).linear(unit.consumer), noise, ids) == pytest.approx(
            predicted, rel=0.35
        )


def cost(model: LoadedModel, linear: torch.nn.Linear, noise: Tensor, ids: Tensor) -> float:
    """Per token: KL to the undisturbed outputs, or half the squared distance of the pooled embeddings."""
    clean = outputs(model, ids)
    signs = torch.randint(0, 2, (*ids.shape, 1), generator=torch.Generator().manual_seed(9)) * 2 - 1
    handle = linear.register_forward_hook(lambda _m, _x, y: y + signs * noise)  # independent from token to token
    try:
        disturbed = outputs(model, ids)
    finally:
        handle.remove()
    if model.head == "encoder":
        return 0.5 * (clean - disturbed).square().sum().item() / ids.numel()
    return (clean.exp() * (clean - disturbed)).sum().item() / ids.numel()


def outputs(model: LoadedModel, ids: Tensor) -> Tensor:
    found = answer(model, ids).double()
    if model.head == "encoder":
        return torch.nn.functional.normalize(found.mean(dim=1), dim=1)
    return found.log_softmax(dim=-1)


def test_gradients_leave_no_hook_and_give_the_same_twice(tiny: Tiny) -> None:
    model = tiny("llama")
    ids = torch.randint(2, 128, (2, 8), generator=torch.Generator().manual_seed(7))
    one, two = (Statistics(model, {"random": [ids]}).gradients for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not [name for name, module in model.module.named_modules() if module._forward_hooks]
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert one["layers.0", "mlp.down_proj"].shape == (64, 64)
    assert one["layers.0", "mlp.up_proj"].shape == (128,)
