"""The CUDA paths beside bf16 on the same GPU: every storage gives nearly the same outputs in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from objectives.devices.cuda import Cuda
from objectives.errors import Unsupported
from objectives.measuring.weighing import stored_bytes
from objectives.quantization.grid import round_to_grid

pytestmark = pytest.mark.gpu

Pack = Callable[[nn.Linear], nn.Module]


def _int4(linear: nn.Linear) -> nn.Module:
    codes = round_to_grid(linear.weight.float(), torch.ones(linear.in_features), 4, 64, (1.0,))
    return Cuda().pack(linear, 4, codes, "w8a8")


PACKS: dict[str, tuple[Pack, float, float]] = {
    "int8": (lambda linear: Cuda().pack(linear, 8, None, "w8a8"), 0.03, 0.52),
    "int8 weights alone": (lambda linear: Cuda().pack(linear, 8, None, "weight_only"), 0.02, 0.52),
    "fp8": (lambda linear: Cuda().pack(linear, 8, None, "fp8"), 0.06, 0.52),
    "int4": (_int4, 0.2, 0.3),
}


def source() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1024, 2048, bias=False).bfloat16().requires_grad_(False)


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("rows", [1, 32, 256])
def test_a_packed_linear_gives_nearly_the_outputs_of_bf16_in_fewer_bytes(name: str, rows: int) -> None:
    Cuda().start()
    pack, most, share = PACKS[name]
    linear = source()
    x = torch.randn(rows, 1024).bfloat16().cuda()
    wanted = x.float() @ linear.weight.float().t().cuda()
    dense = stored_bytes([linear])
    packed = pack(linear)
    assert ((packed(x).float() - wanted).norm() / wanted.norm()).item() < most
    assert stored_bytes([packed]) <= share * dense


def test_two_of_four_weights_give_the_outputs_of_the_masked_weight() -> None:
    Cuda().start()
    if not Cuda().sparse:
        pytest.skip("compute capability below 8.0")
    linear = source()
    linear.weight *= torch.tensor([1, 0, 0, 1]).tile(2048, 256)
    x = torch.randn(256, 1024).bfloat16().cuda()
    wanted = x.float() @ linear.weight.float().t().cuda()
    dense = stored_bytes([linear])
    packed = Cuda().pack_sparse(linear)
    assert ((packed(x).float() - wanted).norm() / wanted.norm()).item() < 0.01
    assert stored_bytes([packed]) <= 0.6 * dense
    with pytest.raises(Unsupported, match="in 32s"):
        Cuda().pack_sparse(nn.Linear(48, 48))
