"""A forward pass compiled by Inductor."""

from __future__ import annotations

from typing import Any

import torch

from objectives.models import LoadedModel
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.fp32 import Fp32Linear
from objectives.packing.linear import PackedLinear


def compiled(model: LoadedModel, mode: str) -> Any:
    """Return the compiled pass of ``model``, which reads its tensors; the model stays as it is."""
    module = model.sharing().module
    for part in module.modules():
        if isinstance(part, PackedLinear) and not isinstance(part, (Bf16Linear, Fp32Linear)):
            disable: Any = torch.compiler.disable  # has no types
            setattr(part, "forward", disable(part.forward))  # noqa: B010  Inductor fails on some of these kernels
    return torch.compile(module.forward, mode=mode, dynamic=True)
