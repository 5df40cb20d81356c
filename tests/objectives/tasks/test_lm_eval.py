"""Presets of multiple choice give the numbers of lm-evaluation-harness 0.4.13, by its HFLM, on the same rows.

``lm_eval.json`` was written by ``benchmarks/lm_eval_reference.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from objectives.models import Checkpoint
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.choice import Choice, _hit
from objectives.tasks.data.files import read_rows
from tests.objectives.recipes import CONF

REFERENCE: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "lm_eval.json").read_text())
ROWS = 24

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2() -> TorchRunner:
    model = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()
    model.module.float()
    return TorchRunner(model)


@pytest.mark.parametrize("name", REFERENCE)
def test_likelihoods_and_answers_are_those_of_lm_eval(smollm2: TorchRunner, name: str) -> None:
    preset = yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text())
    defaults = preset.pop("defaults")
    settings = {**yaml.safe_load((CONF / "task" / f"{defaults[0]}.yaml").read_text()), **preset}
    settings.pop("_target_")
    settings["choices"] = tuple(settings["choices"]) if isinstance(settings["choices"], list) else settings["choices"]
    task = Choice(**settings)
    questions = task._questions(read_rows(task.data, "task.data")[:ROWS])
    found = task._likelihoods(smollm2, questions)
    for ours, theirs in zip(found, REFERENCE[name]["likelihoods"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    for metric in ("accuracy", "accuracy_norm"):
        hits = [_hit(each, likelihoods, metric) for each, likelihoods in zip(questions, found)]
        assert hits == REFERENCE[name][metric]
