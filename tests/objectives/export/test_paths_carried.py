"""A winner carries the paths of its packed linears, and takes them where it is loaded on the same kind of machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.export import export_check, winner
from objectives.export.stock import MANIFEST
from objectives.packing import paths
from objectives.packing.linear import places
from objectives.packing.paths import ROWS
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from tests.objectives.conftest import Tiny


@pytest.fixture(autouse=True)
def unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    paths.forget()
    yield
    paths.forget()


def test_a_winner_is_loaded_with_the_paths_that_it_was_measured_with(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("llama")
    model = source.copy()
    RoundToNearest(bits=8, scheme="weight_only", predicts=False).quantize_(model, Statistics(source, {}), Cpu())
    Cpu().use_paths()
    names = places(model.module)
    assert names
    carried = {"machine": paths.in_use([])["machine"], "fastest": {name: ["widened"] * len(ROWS) for name in names}}
    paths.forget()
    Cpu().use_paths(carried)
    winner.save(TorchRunner(model), source, tmp_path / "winner", {})
    assert json.loads((tmp_path / "winner" / MANIFEST).read_text())["paths"] == carried
    ids = torch.arange(24).view(2, 12)
    answers = export_check.model_answers(model, ids)
    paths.forget()
    again = winner.load(tmp_path / "winner")
    assert paths.in_use(names) == carried
    assert all(map(torch.equal, export_check.answers(again, ids), answers))


def test_answers_that_were_kept_with_other_paths_may_differ_by_rounding(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("llama")
    model = source.copy()
    RoundToNearest(bits=8, scheme="weight_only", predicts=False).quantize_(model, Statistics(source, {}), Cpu())
    Cpu().use_paths()
    export_check.write_answers(tmp_path, model, torch.arange(24).view(2, 12))
    machine = paths.in_use([])["machine"]
    fastest = {name: ["widened"] * len(ROWS) for name in places(model.module)}
    Cpu().use_paths({"machine": machine, "fastest": fastest})
    export_check.check_answers(tmp_path, model)  # to the bit it would not
