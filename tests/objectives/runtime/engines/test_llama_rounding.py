"""llama.cpp rounds by itself where it is asked, weighted by the mean squares of our calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from objectives.assets import AssetError, ready
from objectives.calibration.statistics import Statistics, input_powers
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines.llama_rounding import FORMATS, round_file
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.formats import gguf_weights
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.llama_cpp import OWN, LlamaCpp
from objectives.workloads.generation import Generation
from tests.objectives.runtimes import Hand, candidate, compressed, rounded

WORKLOAD = Generation(batch_size=2, prompt_tokens=6, new_tokens=4)
IDS = torch.randint(2, 128, (2, 18), generator=torch.Generator().manual_seed(5))


def fetched() -> str:
    try:
        return str(ready("llama-cpp") or "")
    except AssetError:
        return ""


PLACE = fetched()
needs_a_build_that_rounds = pytest.mark.skipif(not PLACE, reason="paretune fetch llama-cpp")


@pytest.fixture(autouse=True)
def build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have a cache of their own, so that what was fetched is named to them."""
    monkeypatch.setenv(OWN, PLACE)


def statistics_of(model: LoadedModel) -> Statistics:
    numbers = torch.Generator().manual_seed(1)
    return Statistics(model, {"text": [torch.randint(2, 128, (4, 24), generator=numbers)]})


def test_powers_are_the_mean_squares_of_inputs_also_of_what_pruning_left(tiny: Callable[[str], LoadedModel]) -> None:
    dense = tiny("llama")
    statistics = statistics_of(dense)
    seen: dict[str, torch.Tensor] = {}
    path = "model.layers.0.mlp.down_proj"
    linear = dense.module.get_submodule(path)
    hook = linear.register_forward_pre_hook(lambda _module, inputs: seen.update(x=inputs[0].detach()))
    try:
        dense.module(input_ids=statistics.domains["text"][0])
    finally:
        hook.remove()
    powers = input_powers(dense, statistics)
    assert torch.allclose(powers[path], seen["x"].float().flatten(0, 1).square().mean(0), rtol=0.05, atol=1e-4)
    pruned = compressed(dense, statistics, rounded(16), ratio=0.3)
    left = input_powers(pruned, statistics)
    assert left.keys() == powers.keys()
    for name, module in pruned.module.named_modules():
        if name in left:
            assert left[name].shape == (module.in_features,)  # type: ignore[operator]
    assert input_powers(dense, Statistics(dense, {})) == {}


@pytest.mark.parametrize(
    ("quantizer", "said"),
    [
        (rounded(16), None),
        (rounded(32), None),
        (rounded(8), "rounds by itself: quantization.bits=16"),
        (rounded(16, embeddings=8), "quantization.embeddings=16"),
    ],
)
def test_only_floats_are_rounded(quantizer: Any, said: str | None) -> None:
    runtime = LlamaCpp(rounding="q4_0", library="fetched")
    told = runtime.supports(candidate(quantizer, runtime, WORKLOAD), "causal_lm", Cpu())
    assert told is None if said is None else said in str(told)


def test_the_wheel_cannot_round_and_says_so_before_anything_runs() -> None:
    runtime = LlamaCpp(rounding="q4_0")
    told = runtime.supports(candidate(rounded(16), runtime, WORKLOAD), "causal_lm", Cpu())
    assert told == "rounding=q4_0 needs the whole library: runtimes.llama_cpp.library=fetched"


def test_a_build_that_cannot_round_says_which_one_can(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    gguf_weights.write(compressed(tiny("llama"), None, rounded(16)), tmp_path / "a.gguf")
    with pytest.raises(Unsupported, match=r"cannot round: paretune fetch llama-cpp, and .*library=fetched"):
        round_file("", tmp_path / "a.gguf", tmp_path / "b.gguf", "q4_0", {}, 1)


def prepared(model: LoadedModel, runtime: LlamaCpp, base: Path, powers: dict[str, torch.Tensor]) -> EngineRunner:
    context = Hand(model, rounded(16), base, powers=powers)
    runner = runtime.prepare(context)  # type: ignore[arg-type]
    assert isinstance(runner, EngineRunner)
    return runner


@needs_a_build_that_rounds
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_answers_about_as_torch_and_counts_its_bytes(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, name: Any
) -> None:
    model = compressed(tiny("llama"), None, rounded(16))
    runner = prepared(model, LlamaCpp(library="own", rounding=name), tmp_path, {})
    wanted = TorchRunner(model).logits(IDS).float()
    assert float((runner.logits(IDS).float() - wanted).norm() / wanted.norm()) < (
        0.03 if name == "q8_0" else 0.3
    )  # weights are random
    size = (runner.folder / "model.gguf").stat().st_size
    assert runner.stored_bytes == size
    assert sum(runner.facts.stored.values()) < size
    assert not (runner.folder / "model.plain").exists()


@needs_a_build_that_rounds
def test_important_inputs_are_rounded_with_more_care(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    model = compressed(tiny("llama"), None, rounded(16))
    path = "model.layers.0.mlp.down_proj"
    weight = model.module.get_submodule(path).dense.float().numpy()
    power = np.ones(weight.shape[1], np.float32)
    power[::8] = 1e4
    errors = {}
    for name, powers in {"plain": {}, "weighed": {path: torch.from_numpy(power)}}.items():
        (tmp_path / name).mkdir()
        runner = prepared(model, LlamaCpp(library="own", rounding="q4_0"), tmp_path / name, powers)
        tensors = {tensor.name: tensor for tensor in GGUFReader(runner.folder / "model.gguf").tensors}
        found = tensors[gguf_weights.names_of([path])[path]]
        restored = dequantize(found.data, found.tensor_type)
        errors[name] = float((((restored - weight) ** 2) * power).sum())
    assert errors["weighed"] < 0.9 * errors["plain"]


@needs_a_build_that_rounds
def test_importance_can_be_left_out(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = compressed(tiny("llama"), None, rounded(16))
    runtime = LlamaCpp(library="own", rounding="q4_0", importance=False)
    asked: list[str] = []

    class Asking(Hand):
        def input_powers(self) -> dict[str, torch.Tensor]:
            asked.append("powers")
            return super().input_powers()

    for each in (runtime, replace(runtime, importance=True)):
        each.prepare(Asking(model, rounded(16), tmp_path))  # type: ignore[arg-type]
    assert asked == ["powers"]
