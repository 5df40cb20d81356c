"""A gated FFN is never fused on one thread, where OpenVINO's plug-in divides by zero on CPUs with AMX."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objectives.models import LoadedModel
from objectives.runtime.engines.folder import Floats
from objectives.runtime.engines.guard import Guard
from objectives.runtime.engines.masks import causal
from objectives.runtime.engines.openvino_faults import keep_gates_apart, usable_threads
from objectives.runtime.engines.signal_stack import signal_stack_kept
from objectives.runtime.openvino import MODEL, OpenVino
from tests.objectives.runtimes import Hand, compressed, rounded

IDS = np.arange(18).reshape(2, 9)
GATED = {"llama": 3, "gemma": 2, "qwen2": 2, "gpt2": 0, "opt": 0}
"""How many gated FFNs the tiny models have."""

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def engine(
    tiny: Callable[[str], LoadedModel], statistics: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Make:
    """The folder of a tiny model's engine."""
    base = tmp_path_factory.mktemp("openvino")

    def made(family: str, bits: int, runtime: Any) -> Path:
        model = compressed(tiny(family), statistics(family), runtime.storage(rounded(bits)))
        hand = Hand(model, rounded(bits), base)
        return hand.engine(lambda folder: runtime.write(folder, hand))

    return made


@signal_stack_kept()
def compiled(graph: Any, hint: str) -> Any:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    return openvino.Core().compile_model(graph, "CPU", settings)


@signal_stack_kept()
def read(file: Path) -> Any:
    import openvino

    return openvino.Core().read_model(file)


def answer(model: Any) -> Floats:
    rows, tokens = IDS.shape
    places = np.broadcast_to(np.arange(tokens), IDS.shape).copy()
    inputs = {"ids": IDS, "mask": causal(rows, tokens, tokens, None), "places": places, "wanted": np.arange(tokens)}
    found: Floats = model.create_infer_request().infer({**inputs, "rows": np.arange(rows, dtype=np.int32)})[0]
    return found


@pytest.mark.parametrize(
    ("family", "gates"),
    [each if each[0] == "gpt2" else pytest.param(*each, marks=pytest.mark.slow) for each in GATED.items()],
)
def test_gates_are_kept_apart_and_every_answer_stays_what_it_is(engine: Make, family: str, gates: int) -> None:
    file = engine(family, 16, OpenVino()) / MODEL
    plain, apart = read(file), read(file)
    assert keep_gates_apart(apart) == gates
    assert np.array_equal(answer(compiled(plain, "f32")), answer(compiled(apart, "f32")))
    kinds = {
        node.get_rt_info()["layerType"].astype(str) for node in compiled(apart, "bf16").get_runtime_model().get_ops()
    }
    assert "FullyConnected" in kinds
    assert "LLMMLP" not in kinds


@pytest.mark.parametrize("family", ["llama", pytest.param("gemma", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("bits", "group"), [(16, 64), (8, 64), (8, 256), (4, 64), (32, 64)])
def test_an_engine_of_gated_ffns_runs_on_one_thread(engine: Make, family: str, bits: int, group: Any) -> None:
    """By a trial of the guard: on a CPU with AMX a fused one ends its process."""
    runtime = OpenVino(activation_group=group)
    Guard(None).admit(engine(family, bits, runtime), runtime, 1)


def test_one_cpu_is_one_thread_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3})
    assert usable_threads(4) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3, 5})
    assert (usable_threads(4), usable_threads(1)) == (2, 1)
