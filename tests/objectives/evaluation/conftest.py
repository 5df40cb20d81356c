"""Predictions that the evaluators of these tests share."""

from __future__ import annotations

from typing import Any

import pytest

from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.problem import Problem


@pytest.fixture(scope="session")
def traces() -> dict[object, Any]:
    """Footprints by model and task, then by recipe and workload."""
    return {}


@pytest.fixture
def traced_once(traces: dict[object, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every evaluator know what another one found by tracing the same candidate: a trace takes half a second.

    It depends on the model, its calibration rows and the candidate alone; the tasks of one class calibrate alike.
    """
    start = ModelPool.__init__

    def shared(self: ModelPool, problem: Problem) -> None:
        start(self, problem)
        self._footprints = traces.setdefault((problem.model.path, type(problem.task)), {})

    monkeypatch.setattr(ModelPool, "__init__", shared)
