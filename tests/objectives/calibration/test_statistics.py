"""Moments are plain averages over the inputs that every linear really saw."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from objectives.calibration.moments import Moment, collect_moments
from objectives.models import LoadedModel
from tests.objectives.conftest import Tiny
from tests.objectives.families import answer, each_family


def token_batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(2, 128, shape, generator=generator) for shape in ((2, 12), (3, 7))]


def inputs_seen(model: LoadedModel, batches: list[Tensor]) -> dict[tuple[str, str], Tensor]:
    """Rows [n, k], fp64, that reached each block linear, seen from outside."""
    seen: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for block in model.blocks():
        for path in block.stack.block_linears:

            def record(_m: nn.Module, args: Any, _y: Any, key: tuple[str, str] = (block.name, path)) -> None:
                seen[key].append(args[0].reshape(-1, args[0].shape[-1]).double())

            block.linear(path).register_forward_hook(record)
    for batch in batches:
        answer(model, batch)
    return {key: torch.cat(parts) for key, parts in seen.items()}


@each_family
def test_moments_are_the_averages_of_what_each_linear_saw(tiny: Tiny, family: str) -> None:
    moments = collect_moments(tiny(family), {"one": token_batches()})
    seen = inputs_seen(tiny(family).copy(), token_batches())
    assert moments.keys() == seen.keys()
    for key, rows in seen.items():
        assert len(rows) >= 2 * 12 + 3 * 7  # more where a block is run again, or reads position embeddings too
        torch.testing.assert_close(moments[key].mean.double(), rows.mean(dim=0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moments[key].second.double(), rows.t() @ rows / len(rows), rtol=1e-4, atol=1e-5)


@each_family
def test_linears_that_read_one_tensor_share_one_moment(tiny: Tiny, family: str) -> None:
    moments = collect_moments(tiny(family), {"one": token_batches()})
    for block in tiny(family).blocks():
        for paths in block.stack.shared_inputs:
            assert len({id(moments[block.name, path]) for path in paths}) == 1


def test_calibration_leaves_the_model_as_it_was_even_after_an_error(tiny: Tiny) -> None:
    model = tiny("llama").copy()
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    good, bad = torch.tensor([[3, 4]]), torch.tensor([[3, 999]])
    with pytest.raises(IndexError):
        collect_moments(model, {"one": [good, bad]})
    collect_moments(model, {"one": [good]})
    assert not [name for name, module in model.module.named_modules() if module._forward_pre_hooks]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())


def test_the_moment_of_kept_channels_is_that_of_the_kept_inputs() -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([4, 1])
    selected = Moment(rows.mean(dim=0), rows.t() @ rows / 50).select(kept)
    torch.testing.assert_close(selected.mean, rows[:, kept].mean(dim=0))
    torch.testing.assert_close(selected.second, rows[:, kept].t() @ rows[:, kept] / 50)


def test_domains_weigh_the_same_however_many_rows_they_have(tiny: Tiny) -> None:
    few, many = token_batches()[:1], token_batches() * 3
    both = collect_moments(tiny("llama"), {"few": few, "many": many})
    apart = [collect_moments(tiny("llama"), {"it": batches}) for batches in (few, many)]
    for key, moment in both.items():
        torch.testing.assert_close(moment.second, (apart[0][key].second + apart[1][key].second) / 2)
        torch.testing.assert_close(moment.mean, (apart[0][key].mean + apart[1][key].mean) / 2)
    assert not torch.allclose(both["layers.0", "mlp.down_proj"].second, apart[1]["layers.0", "mlp.down_proj"].second)
