"""Passes recorded as CUDA graphs give what the same passes give one launch at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.models import LoadedModel
from objectives.protocols.candidate import BuildContext
from objectives.protocols.running import Device, Runner
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.runtime.cuda_graphs import CudaGraphs
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.in_torch.static_cache import StaticCacheRunner
from objectives.runtime.torch_compile import TorchCompile
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from tests.objectives.conftest import Tiny
from tests.objectives.runtimes import Hand, candidate, rounded

gpu = pytest.mark.gpu

IDS = torch.arange(2, 14).view(2, 6)


def on_card(tiny: Tiny, family: str, bits: int = 16, ratio: float = 0.0) -> LoadedModel:
    Cuda().start()
    model = tiny(family).copy()
    nothing = Statistics(tiny(family), {})
    if ratio:
        Structured(ratio=ratio, criterion=Magnitude(), reconstruction="none", multiple_of=16).prune_(model, nothing)
    rounded(bits).quantize_(model, nothing, Cuda())
    return model


def context(model: LoadedModel) -> BuildContext:
    return Hand(model, rounded(16), base=None, device=Cuda())  # type: ignore[arg-type]


def written(runner: Runner, ids: torch.Tensor, tokens: int = 5) -> list[list[int]]:
    out = torch.empty(len(ids), tokens, dtype=torch.int64, device="cuda")
    with torch.inference_mode():
        runner.generate(ids.cuda(), out)
    found: list[list[int]] = out.tolist()
    return found


@pytest.mark.parametrize(
    ("device", "head", "reason"),
    [(Cpu(), "causal_lm", "device=cuda"), (Cuda(), "seq2seq", "encoder-decoders"), (Cuda(), "encoder", None)],
)
def test_graphs_are_for_gpus(device: Device, head: Any, reason: str | None) -> None:
    found = CudaGraphs().supports(candidate(rounded(16), CudaGraphs(), Generation()), head, device)
    assert found is None if reason is None else reason in str(found)


@gpu
@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("ratio", [0.0, 0.3])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_recorded_model_writes_what_it_writes_launch_by_launch(
    tiny: Tiny, family: str, bits: int, ratio: float
) -> None:
    model = on_card(tiny, family, bits, ratio)
    recorded, plain = CudaGraphs().prepare(context(model)), StaticCacheRunner(model)
    for ids in (IDS, IDS + 40, IDS[:, :3], IDS[:1], IDS):  # anew, of other shapes, and the first one again
        assert written(recorded, ids) == written(plain, ids)


@gpu
def test_an_encoder_is_recorded_and_padded_rows_run_as_they_come(tiny: Tiny) -> None:
    model = on_card(tiny, "bert")
    recorded, plain = CudaGraphs().prepare(context(model)), TorchRunner(model)
    mask = torch.ones_like(IDS).cuda()
    mask[0, 4:] = 0
    with torch.inference_mode():
        for ids in (IDS.cuda(), IDS.cuda() + 30):
            assert torch.allclose(recorded.encode(ids), plain.encode(ids), atol=1e-2)
        assert torch.equal(recorded.encode(ids, mask), plain.encode(ids, mask))


@gpu
@pytest.mark.parametrize("workload", [Generation(batch_size=4, prompt_tokens=60, new_tokens=4), Encoding()])
def test_memory_of_a_recorded_model_holds_its_cache_and_is_the_same_after_it_ran(tiny: Tiny, workload: Any) -> None:
    model = on_card(tiny, "llama" if workload.head == "causal_lm" else "bert")
    recorded = CudaGraphs().prepare(context(model))
    first = recorded.memory(workload, Cuda())
    for _ in range(2):
        workload.run(recorded, Cuda().stopwatch())
    again, plain = recorded.memory(workload, Cuda()), TorchRunner(model).memory(workload, Cuda())
    for phase, peak in first.peaks.items():
        assert again.peaks[phase] == pytest.approx(peak, rel=0.001)
    assert first.cache == plain.cache * (64 / 63 if plain.cache else 1)  # as long as the run from the start
    assert first.peak >= plain.peak * 0.9


@gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_model_writes_nearly_what_it_writes_in_eager_mode(tiny: Tiny, mode: Any) -> None:
    model = on_card(tiny, "llama")
    compiled, eager = TorchCompile(mode=mode).prepare(context(model)), TorchRunner(model)
    with torch.inference_mode():
        first, _ = compiled.prefill(IDS.cuda())
        other, _ = eager.prefill(IDS.cuda())
    assert torch.allclose(first, other, atol=0.05)
    assert written(compiled, IDS) == written(compiled, IDS)  # the second time replayed, where passes are recorded
    found, plain = torch.tensor(written(compiled, IDS)), torch.tensor(written(eager, IDS))
    assert (found == plain).float().mean() >= 0.8  # near ties may turn
