"""Several tasks in one evaluator: each as far as its own floor asks, none after one that is missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from objectives.devices.cpu import Cpu
from objectives.errors import NotFinite
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.measuring.stored_facts import facts_of, texts_of
from objectives.models import Checkpoint
from objectives.protocols.optional import Banded
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.several import Several
from objectives.types import Decision, Failure, Gate, Measurement, Score
from tests.objectives.evaluation.test_stages import QUICK, TOTAL, Hits, _quiet, candidate, measured

__all__ = ["_quiet"]
pytestmark = pytest.mark.usefixtures("traced_once")
GATE = Gate(0.0, 0.005, skip_timing_if_missed=True, floors={"first": 0.72, "second": 0.72})
PRUNED = candidate(0.5)


@dataclass(frozen=True)
class Rambling(Hits, Banded):
    """Answers as well as before, at ``length`` times the references' once it is compressed."""

    length: float = 1.0

    @property
    def bands(self) -> dict[str, tuple[float, float]]:
        return {"length_ratio": (0.9, 1.1)}

    def parts(self, model: TorchRunner, order: Sequence[int]) -> Iterator[Score]:
        ratio = self.length if model.model.widths else 1.0
        for part in super().parts(model, order):
            count = len(part.examples)
            yield replace(part, extra={"length_ratio": ratio}, sums={"length_ratio": (ratio * count, float(count))})


@dataclass(frozen=True)
class Broken(Hits):
    """Gives no number once it is compressed."""

    def parts(self, model: TorchRunner, order: Sequence[int]) -> Iterator[Score]:
        if model.model.widths:
            raise NotFinite("task.wrong: no number")
        yield from super().parts(model, order)


@pytest.fixture
def ask(tiny_folder: Callable[[str], Path]) -> Callable[..., Measurement]:
    """Evaluate the baseline, and then a candidate under a gate."""
    checkpoint = Checkpoint(path=str(tiny_folder("mistral")), head="causal_lm")

    def asked(task: object, gate: Gate | None = GATE) -> Measurement:
        evaluator = Evaluator(Problem(checkpoint, task, Cpu(threads=1), QUICK, candidate()))  # type: ignore[arg-type]
        measured(evaluator(candidate()))
        Hits.seen.clear()
        return measured(evaluator(PRUNED, gate))

    return asked


def several(first: Hits, second: Hits) -> Several:
    return Several(tasks={"first": first, "second": second})


def test_a_task_that_is_missed_ends_the_scoring(ask: Callable[..., Measurement]) -> None:
    found = ask(several(Hits(0.5), Hits(0.0)))
    assert len(Hits.seen) < TOTAL
    assert found.facts.is_missed
    assert found.facts.timing_skipped
    assert not {"accuracy", "accuracy.second"} & set(found.metrics)
    assert found.facts.tasks["first"].verdict is not None
    assert facts_of(texts_of(found.facts)) == found.facts


def test_a_task_that_fails_names_its_own_settings(tiny_folder: Callable[[str], Path]) -> None:
    checkpoint = Checkpoint(path=str(tiny_folder("mistral")), head="causal_lm")
    evaluator = Evaluator(Problem(checkpoint, several(Hits(), Broken()), Cpu(threads=1), QUICK, candidate()))
    measured(evaluator(candidate()))
    for _ in range(2):  # the second time it is known
        failed = evaluator(PRUNED, GATE)
        assert isinstance(failed, Failure)
        assert failed.message == "tasks.second.wrong: no number"


def test_every_task_races_against_its_own_floor(ask: Callable[..., Measurement]) -> None:
    found = ask(several(Hits(0.0), Hits(0.5)))
    verdicts = {name: each.verdict for name, each in found.facts.tasks.items()}
    assert [each and (each.decision, each.method) for each in verdicts.values()] == [
        (Decision.REACHED, "betting"), (Decision.MISSED, "betting")
    ]  # fmt: skip
    assert found.facts.is_missed
    assert found.metrics["examples"] == found.metrics["examples.first"] + found.metrics["examples.second"] < 2 * TOTAL
    assert len(found.ids) == found.metrics["examples"]
    assert {name.partition(":")[0] for name in found.ids} == {"first", "second"}
    assert len(found.samples["accuracy.second"]) == found.metrics["examples.second"]


def test_a_floor_on_the_mean_asks_for_all_examples(ask: Callable[..., Measurement]) -> None:
    gate = replace(GATE, floor=0.78, floors={"first": 0.0, "second": 0.0})
    found = ask(several(Hits(0.0), Hits(0.1)), gate)
    assert len(Hits.seen) == 2 * TOTAL
    assert found.metrics["accuracy"] == pytest.approx(0.75, abs=0.002)
    assert found.metrics["accuracy_difference"] == pytest.approx(-0.05, abs=0.002)
    low, high = (found.metrics[f"accuracy_difference.{end}"] for end in ("low", "high"))
    assert low < -0.05 < high
    assert found.facts.is_missed


def test_several_tasks_score_as_each_does_by_itself(ask: Callable[..., Measurement]) -> None:
    found = ask(several(Hits(0.0), Hits(0.1)), None)
    alone = ask(Hits(0.1), None)
    for name in ("accuracy", "accuracy_stderr", "accuracy_difference", "accuracy_difference.low", "perplexity"):
        assert found.metrics[f"{name}.second"] == alone.metrics[name]
    assert found.facts.verdict is None


@pytest.mark.parametrize(("length", "missed"), [(1.05, False), (1.3, True), (0.5, True)])
def test_a_candidate_outside_of_its_band_is_missed_on_all_examples(
    ask: Callable[..., Measurement], length: float, missed: bool
) -> None:
    found = ask(Rambling(length=length), Gate(0.72, 0.005, skip_timing_if_missed=True))
    assert found.metrics["examples"] == TOTAL == len(Hits.seen)
    assert found.metrics["length_ratio"] == pytest.approx(length)
    assert (found.metrics["length_ratio.least"], found.metrics["length_ratio.most"]) == (0.9, 1.1)
    assert found.facts.is_missed is missed


def test_a_candidate_that_misses_its_floor_is_not_scored_to_the_end_for_its_length(
    ask: Callable[..., Measurement],
) -> None:
    found = ask(Rambling(wrong=0.5), Gate(0.72, 0.005))
    assert found.metrics["examples"] < TOTAL
    assert "length_ratio" not in found.metrics
