"""Packed weights that are held once more in 16 bits: counted, one model for all numbers of rows, kept by a winner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import load
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.export import winner
from objectives.export.export_check import answers, differing
from objectives.measuring.footprint import fake_copy, footprint, sketch
from objectives.models import LoadedModel
from objectives.packing import linear
from objectives.packing.linear import can_copy, holds_copies
from objectives.packing.weighing import copied_bytes, stored_bytes, weigh
from objectives.runtime.torch import Torch
from objectives.workloads.generation import Generation
from tests.objectives.runtimes import Hand, candidate, compressed, rounded

IDS = torch.arange(2 * 24).view(2, 24) % 90 + 5
RUNTIME = Torch(prefill_copy=True)
LOAD = Generation(prompt_tokens=8, new_tokens=4)
needs_copies = pytest.mark.skipif(not can_copy(), reason="this CPU does not multiply 16 bits by itself")
Tiny = Callable[[str], LoadedModel]


@pytest.fixture
def hand(tiny: Tiny, tmp_path: Path) -> Callable[[int], Hand]:
    def made(bits: int) -> Hand:
        quantizer = rounded(bits)
        return Hand(compressed(tiny("llama"), Statistics(tiny("llama"), {}), quantizer), quantizer, tmp_path)

    return made


@needs_copies
@pytest.mark.parametrize("bits", [8, 4])
def test_copies_are_counted_and_the_model_itself_has_none(hand: Callable[[int], Hand], bits: int) -> None:
    context = hand(bits)
    runner: Any = RUNTIME.prepare(context)
    plain, copied = context.model(), runner.model
    assert holds_copies(copied)
    assert not holds_copies(plain)
    more = sum(map(copied_bytes, copied.module.modules()))
    assert stored_bytes([copied.module]) == stored_bytes([plain.module]) + more
    assert runner.weights(1)["weight_bytes"] == stored_bytes([copied.module])
    assert weigh(copied, 1)["effective_bits"] == weigh(plain, 1)["effective_bits"]


@needs_copies
@pytest.mark.parametrize("bits", [8, 4])
def test_a_prompt_and_its_tokens_one_by_one_are_one_model(hand: Callable[[int], Hand], bits: int) -> None:
    runner: Any = RUNTIME.prepare(hand(bits))
    with torch.inference_mode():
        whole = runner.logits(IDS)
        _, cache = runner.prefill(IDS[:, :-1])
        step = runner.step(IDS[:, -1:], cache)[0]
    off = (whole[:, -1] - step).norm() / step.norm()
    assert off < 0.02  # bf16; inputs that are rounded in one of them would be off by more


@needs_copies
def test_predictions_know_of_copies(tiny: Tiny) -> None:
    dense, statistics = tiny("llama"), Statistics(tiny("llama"), {})
    sizes = {}
    for runtime in (Torch(), RUNTIME):
        chosen = candidate(rounded(4), runtime, LOAD)
        sizes[runtime] = footprint(sketch(fake_copy(dense), chosen, statistics, Cpu()), LOAD).weights
    real = compressed(dense, statistics, rounded(4))
    assert sizes[Torch()] == stored_bytes([real.module])
    assert sizes[RUNTIME] == stored_bytes([RUNTIME.arranged(real).module])


@needs_copies
@pytest.mark.parametrize("bits", [8, 4])
def test_a_winner_is_loaded_with_its_copies(hand: Callable[[int], Hand], tmp_path: Path, bits: int) -> None:
    runner: Any = RUNTIME.prepare(hand(bits))
    facts = {"prepared": winner.in_torch(RUNTIME, {"one": [IDS]})}
    winner.save(runner, hand(16).model(), tmp_path / "winner", facts, IDS)
    again: Any = load(tmp_path / "winner")
    assert holds_copies(again.model)
    assert differing(answers(again, IDS), answers(runner, IDS)) is None


def test_where_copies_are_of_no_use_the_cell_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "can_copy", lambda: True)
    reason = RUNTIME.supports(candidate(rounded(16), RUNTIME, LOAD), "causal_lm", Cpu())
    assert reason == "prefill_copy is for weights in 8 or 4 bits: runtime.prefill_copy=false"
    assert RUNTIME.supports(candidate(rounded(4), RUNTIME, LOAD), "causal_lm", Cpu()) is None
    monkeypatch.setattr(linear, "can_copy", lambda: False)
    assert "CPUs that multiply 16 bits" in str(
        RUNTIME.supports(candidate(rounded(4), RUNTIME, LOAD), "causal_lm", Cpu())
    )
