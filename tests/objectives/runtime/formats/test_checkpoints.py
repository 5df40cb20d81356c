"""Folders in stock formats hold the codes that our quantisers chose; what they cannot hold is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.awq import Awq
from objectives.runtime.engines.weights import Dense, matrices
from objectives.runtime.formats import compressed_tensors, hugging_face
from tests.conftest import SIZES, head_of
from tests.objectives.runtimes import compressed, rounded

Tiny = Callable[[str], LoadedModel]
IDS = torch.randint(2, 120, (2, 12), generator=torch.Generator().manual_seed(0))
DECODERS = [name for name in SIZES if head_of(name) == "causal_lm"]


def uniform(model: LoadedModel) -> LoadedModel:
    """The model with the FFNs of all blocks narrowed alike."""
    narrow = model.copy()
    pruner = Structured(ffn_ratio=0.5, criterion=Magnitude(), allocation="uniform", reconstruction="none")
    pruner.prune_(narrow, Statistics(model, {}))
    return narrow


@torch.inference_mode()
def answer(module: Any) -> torch.Tensor:
    return module(input_ids=IDS).logits.float()


def test_a_plain_checkpoint_of_narrower_blocks_is_what_transformers_loads(tiny: Tiny, tmp_path: Path) -> None:
    model = uniform(tiny("llama"))
    rounded(16).quantize_(model, Statistics(tiny("llama"), {}), Cpu())
    sizes = hugging_face.write(model, None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["intermediate_size"] == 64
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, stored in matrices(model):
        assert isinstance(stored, Dense)
        assert (stock.get_submodule(name).weight.detach().numpy() == stored.values).all()
        assert sizes[name] == stored.values.size * 2
    assert (answer(stock) - answer(model.module)).norm() < 0.02 * answer(stock).norm()


@pytest.mark.parametrize("family", DECODERS)
def test_every_decoder_is_written_as_it_answers_or_refused(tiny: Tiny, tmp_path: Path, family: str) -> None:
    model = compressed(tiny(family), None, rounded(16))
    try:
        hugging_face.write(model, None, tmp_path)
    except Unsupported as error:
        assert "config" in str(error)  # noqa: PT017  either way is right
        return
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert (answer(stock) - answer(model.module)).norm() < 0.05 * answer(stock).norm()


def test_blocks_of_unlike_widths_are_no_plain_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    model = compressed(tiny("llama"), Statistics(tiny("llama"), {}), rounded(16), 0.3)
    with pytest.raises(Unsupported, match=r"pruning\.layout=uniform"):
        hugging_face.write(model, None, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bits", "form", "zeros"), [(8, "int-quantized", False), (4, "pack-quantized", False), (4, "pack-quantized", True)]
)
def test_compressed_tensors_hold_our_codes_bit_for_bit(
    tiny: Tiny, tmp_path: Path, bits: int, form: str, zeros: bool
) -> None:
    quantizer = rounded(bits).portable() if zeros else rounded(bits).stored_in_blocks(32)
    model = compressed(uniform(tiny("llama")), Statistics(tiny("llama"), {}), quantizer)
    sizes = compressed_tensors.write(model, None, tmp_path)
    section = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert section["config_groups"]["group_0"]["format"] == form
    assert section["ignore"] == ["lm_head"]
    tensors = load_file(tmp_path / "model.safetensors")
    for name, stored in matrices(model):
        if isinstance(stored, Dense):
            assert (tensors[f"{name}.weight"].float().numpy() == stored.values).all()
            continue
        assert np.allclose(read(tensors, name, bits, zeros), stored.dequantized(), rtol=0, atol=1e-7)
        written = [tensor for key, tensor in tensors.items() if key.startswith(f"{name}.weight") and "shape" not in key]
        assert sizes[name] == sum(tensor.nbytes for tensor in written)


def read(tensors: dict[str, torch.Tensor], name: str, bits: int, zeros: bool) -> np.ndarray[Any, Any]:
    """The weight as the format's own page defines it."""
    scale = tensors[f"{name}.weight_scale"].float()
    if bits == 8:
        return (tensors[f"{name}.weight"].float() * scale).numpy()
    out, width = tensors[f"{name}.weight_shape"].tolist()
    codes = nibbles(tensors[f"{name}.weight_packed"])[:, :width]
    zero = nibbles(tensors[f"{name}.weight_zero_point"].t())[:, :out].t() if zeros else torch.full(scale.shape, 8)
    groups = codes.view(out, scale.shape[1], -1) - zero.unsqueeze(2)
    return (groups * scale.unsqueeze(2)).reshape(out, width).numpy()


def nibbles(words: torch.Tensor) -> torch.Tensor:
    parts = [(words >> shift) & 15 for shift in range(0, 32, 4)]
    return torch.stack(parts, dim=2).flatten(1)


def test_layers_of_unlike_widths_are_named_one_by_one(tiny: Tiny, tmp_path: Path) -> None:
    model = compressed(tiny("llama"), Statistics(tiny("llama"), {}), rounded(4).stored_in_blocks(32))
    other = compressed(tiny("llama"), Statistics(tiny("llama"), {}), rounded(8).stored_in_blocks(32))
    down = "model.layers.1.mlp.down_proj"
    model.module.set_submodule(down, other.module.get_submodule(down))
    compressed_tensors.write(model, None, tmp_path)
    section = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert [down] in [group["targets"] for group in section["config_groups"].values()]
    assert section["format"] == "mixed-precision"
    up = "model.layers.1.mlp.up_proj"
    model.module.set_submodule(up, other.module.get_submodule(up))
    with pytest.raises(Unsupported, match=r"fuse mlp\.gate_proj, mlp\.up_proj; in layers\.1 they have 4 and 8 bits"):
        compressed_tensors.write(model, None, tmp_path)


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (rounded(8, embeddings=8), "quantization.embeddings=16"),
        (Awq(bits=4, predicts=False), "quantization=gptq"),
        (rounded(16), "format=hf"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tiny: Tiny, tmp_path: Path, statistics: Callable[[str], Statistics], quantizer: Any, reason: str
) -> None:
    model = compressed(tiny("llama"), statistics("llama"), replace(quantizer, zero="middle", group_size=32))
    with pytest.raises(Unsupported, match=reason):
        compressed_tensors.write(model, None, tmp_path)


def test_rounded_models_are_no_plain_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"quantization\.bits=16"):
        hugging_face.write(compressed(tiny("llama"), None, rounded(8)), None, tmp_path)
