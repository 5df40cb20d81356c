"""GPTQ's layout holds our codes, zeros and scales as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from objectives.calibration.statistics import Statistics
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.engines.weights import Rounded, matrices
from objectives.runtime.formats import gptq
from tests.objectives.runtimes import compressed, rounded


def rounding(zero: str = "middle", **changes: Any) -> RoundToNearest:
    return rounded(**{"bits": 4, "group_size": 32, "zero": zero, **changes})


def packed(model: LoadedModel, quantizer: RoundToNearest) -> LoadedModel:
    return compressed(model, Statistics(model, {}), quantizer)


def read(tensors: dict[str, torch.Tensor], name: str) -> np.ndarray:
    """A weight as readers of the layout compute it: (code - (zero + 1)) * scale, inputs by ``g_idx``."""
    shifts = 4 * torch.arange(8)
    found = (tensors[f"{name}.qweight"][:, None] >> shifts[:, None] & 15).flatten(0, 1)
    zeros = (tensors[f"{name}.qzeros"][..., None] >> shifts & 15).flatten(1) + 1
    group = tensors[f"{name}.g_idx"].long()
    weight: np.ndarray = ((found - zeros[group]) * tensors[f"{name}.scales"].float()[group]).t().numpy()
    return weight


@pytest.mark.parametrize("zero", ["middle", "whole"])
def test_what_is_read_is_the_weight_that_was_rounded(
    zero: str, tiny: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    model = packed(tiny("llama"), rounding(zero))
    sizes = gptq.write(model, model.tokenizer, tmp_path)
    tensors, stored = load_file(tmp_path / "model.safetensors"), dict(matrices(model))
    codes = {name: each for name, each in stored.items() if isinstance(each, Rounded)}
    assert len(codes) == 7 * 3
    for name, each in codes.items():
        assert (read(tensors, name) == each.dequantized()).all(), name
    assert sizes[next(iter(codes))] == sum(
        tensors[f"{next(iter(codes))}.{leaf}"].nbytes for leaf in ("qweight", "qzeros", "scales")
    )
    said = json.loads((tmp_path / gptq.SETTINGS).read_text())
    assert said == json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert (said["bits"], said["group_size"], said["sym"]) == (4, 32, zero == "middle")


def test_linears_in_sixteen_bits_are_named(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = packed(tiny("llama"), rounding())
    dense = tiny("llama").module.model.layers[0].mlp.down_proj
    model.module.set_submodule("model.layers.0.mlp.down_proj", dense)
    gptq.write(model, None, tmp_path)
    said = json.loads((tmp_path / gptq.SETTINGS).read_text())
    assert said["dynamic"] == {r"-:^model\.layers\.0\.mlp\.down_proj$": {}}
    weight = load_file(tmp_path / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(weight, dense.weight)
    model.module.set_submodule("model.layers.0.self_attn.q_proj", tiny("llama").module.model.layers[0].self_attn.q_proj)
    with pytest.raises(Unsupported, match=r"engines fuse self_attn\.q_proj.* they have 4 and 16 bits"):
        gptq.write(model, None, tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bits": 8}, "has 8 bits, the layout 4: format=compressed-tensors"),
        ({"bits": 16}, "nothing is rounded to 4 bits: format=hf"),
        ({"embeddings": 8}, "in 16 bits: quantization.embeddings=16"),
    ],
)
def test_what_it_cannot_hold_is_refused(
    changes: dict[str, Any], told: str, tiny: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=told):
        gptq.write(packed(tiny("llama"), rounding(**changes)), None, tmp_path)
