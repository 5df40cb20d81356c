"""Engines through the evaluator and the cache: made once, made again when damaged, and safe from the cache's own
housekeeping.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.cache import Cache
from objectives.calibration.moments import Domains
from objectives.devices.cpu import Cpu
from objectives.evaluation.artifact_store import ArtifactStore
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint, LoadedModel
from objectives.protocols.running import Runner
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.onnxruntime import OnnxRuntime
from objectives.runtime.openvino import OpenVino
from objectives.runtime.torch import Torch
from objectives.types import Head, Measurement, Score
from objectives.workloads.generation import Generation
from tests.objectives.runtimes import candidate, rounded

QUICK = Interleaved(min_rounds=1, max_rounds=2, min_seconds=0.0, max_seconds=0.05, patience=0.0, warmups=0)
WORKLOAD = Generation(prompt_tokens=6, new_tokens=3)
IDS = torch.randint(2, 128, (2, 12), generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Sum:
    """Scores with what the runner answers, so that another runner scores another way."""

    head: Head = "causal_lm"

    def calibration(self, _model: LoadedModel) -> Domains:
        return {"toy": [IDS]}

    def evaluate(self, model: Runner) -> Score:
        with torch.inference_mode():
            found = float(model.logits(IDS).float().abs().mean().tanh())
        return Score(found, 0.01, (found,), ids=("only",))


EIGHT = candidate(rounded(8), OnnxRuntime(), WORKLOAD)


def evaluator(folder: Path, cache: Cache | None) -> Evaluator:
    baseline = candidate(rounded(16), Torch(), WORKLOAD)
    model = Checkpoint(path=str(folder), head="causal_lm")
    return Evaluator(Problem(model, Sum(), Cpu(threads=1), QUICK, baseline, cache))


@pytest.fixture(scope="module")
def kept(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the engine of ``EIGHT``, which takes seconds to make. Shared: copy it before it is used."""
    folder = tmp_path_factory.mktemp("kept") / "cache"
    evaluator(tiny_folder("llama"), Cache(folder=str(folder))).runner(EIGHT)
    return folder


@pytest.fixture
def make(tiny_folder: Callable[[str], Path], kept: Path, tmp_path: Path) -> Callable[..., Evaluator]:
    """Evaluators of one cache, as several processes would have them; or of none."""
    folder = tmp_path / "cache"
    shutil.copytree(kept, folder)

    def made(cache: bool = True, max_bytes: float = 1e9) -> Evaluator:
        return evaluator(tiny_folder("llama"), Cache(folder=str(folder), max_bytes=max_bytes) if cache else None)

    return made


def measured(outcome: Any) -> Measurement:
    assert isinstance(outcome, Measurement), outcome
    return outcome


@pytest.mark.parametrize(
    "runtime", [OpenVino(), pytest.param(OnnxRuntime(), marks=pytest.mark.slow)], ids=lambda each: each.name
)
def test_a_candidate_is_scored_weighed_and_timed_through_its_engine(make: Any, runtime: Any) -> None:
    ev = make()
    found = measured(ev(candidate(rounded(8), runtime, WORKLOAD))).metrics
    dense = measured(ev(ev.problem.baseline)).metrics
    with torch.inference_mode():
        own = ev.runner(candidate(rounded(8), runtime, WORKLOAD)).logits(IDS).abs().mean().tanh()
    assert found["accuracy"] == pytest.approx(float(own), abs=1e-6)
    assert found["accuracy"] != dense["accuracy"]
    assert found["own_speedup"] == pytest.approx(found["speedup"] / found["runtime_speedup"])
    assert found["peak_memory"] == pytest.approx(found["runtime_bytes"] + found["resident_peak"])
    assert found["conversion_seconds"] > 0
    assert 8 <= found["effective_bits"] < 10
    assert "own_speedup" not in dense
    assert "predicted_peak" not in found


@pytest.mark.slow
def test_an_engine_is_made_once_for_all_processes(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer(make(), EIGHT)
    monkeypatch.setattr(OnnxRuntime, "write", lambda *_: pytest.fail("made again"))
    assert torch.equal(answer(make(), EIGHT), first)


@torch.inference_mode()
def answer(ev: Evaluator, one: Any) -> torch.Tensor:
    return ev.runner(one).logits(IDS)


@pytest.mark.parametrize(
    "damage", ["flip", *(pytest.param(one, marks=pytest.mark.slow) for one in ("truncate", "lose"))]
)
def test_a_damaged_engine_is_made_again(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first = answer(make(), EIGHT)
    [weights] = (tmp_path / "cache" / "engine").glob("[0-9a-f]*/model.onnx.data")
    data = bytearray(weights.read_bytes())
    weights.unlink()  # links share the file
    if damage == "flip":
        data[len(data) // 2] ^= 1
        weights.write_bytes(bytes(data))
    elif damage == "truncate":
        weights.write_bytes(bytes(data[:100]))
    assert torch.equal(answer(make(), EIGHT), first)
    assert "is damaged and will be made again" in caplog.text
    caplog.clear()
    assert torch.equal(answer(make(), EIGHT), first)
    assert not caplog.text


@pytest.mark.slow
def test_what_the_cache_lets_go_of_goes_on_running(make: Any) -> None:
    ev = make(max_bytes=1.0)  # nothing stays beside the newest entry
    for one in (EIGHT, candidate(rounded(4), OnnxRuntime(), WORKLOAD)):
        assert measured(ev(one)).metrics["peak_memory"] > 0
    assert measured(ev(replace(EIGHT, workload=replace(WORKLOAD, batch_size=2)))).metrics["peak_memory"] > 0


@pytest.mark.parametrize("cache", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_engine_that_is_not_used_any_more_leaves_no_files(make: Any, cache: bool) -> None:
    ev = make(cache)
    runner = ev.runner(EIGHT)
    assert isinstance(runner, EngineRunner)
    folder = runner.folder
    assert folder.is_dir()
    del runner
    ev.pool.forget()
    assert not folder.exists()


@pytest.mark.slow
def test_a_runner_is_made_once_whatever_runs_it(make: Any) -> None:
    """What torch runs in a way of its own too: compiling takes minutes, and lookup goes on in its text."""
    ev = make()
    for runtime in (Torch(attention="eager"), Torch(prompt_lookup=3), OnnxRuntime()):
        one = candidate(rounded(8), runtime, WORKLOAD)
        assert ev.runner(one) is ev.runner(one)
    plain = candidate(rounded(8), Torch(), WORKLOAD)
    for _ in range(2):  # a runner that holds nothing of its own is not kept, its model is
        runner = ev.runner(plain)
        assert isinstance(runner, TorchRunner)
        assert runner.model is ev.compressed(plain)


def test_settings_that_change_the_engine_change_its_name(make: Any) -> None:
    ev = make()
    changed = [
        EIGHT,
        replace(EIGHT, runtime=OnnxRuntime(activation_group=32)),
        replace(EIGHT, runtime=OpenVino()),
        replace(EIGHT, runtime=OpenVino(precision="f32")),
        replace(EIGHT, runtime=OpenVino(), quantization=rounded(8, scheme="weight_only")),
        replace(EIGHT, quantization=rounded(8, embeddings=8)),
    ]
    assert len({ev.pool.stages.name(one, "engine") for one in changed}) == len(changed)


def test_what_a_converter_raises_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def fail(_folder: Path) -> None:
        raise OSError("converter")

    with pytest.raises(OSError, match="converter"):
        ArtifactStore(Cache(folder=str(tmp_path / "cache"))).folder("graph", "name", fail)


def test_a_cache_that_cannot_be_written_to_costs_no_engine(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    artifacts = ArtifactStore(Cache(folder=str(blocked / "cache")))
    made = artifacts.folder("graph", "name", lambda folder: (folder / "one").write_text("1") and None)
    assert (made / "one").read_text() == "1"
