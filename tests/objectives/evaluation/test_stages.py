"""Stages: accuracy is scored as far as it matters, and what is known is not found again, whoever found it."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from objectives.cache import Cache
from objectives.calibration.moments import Domains
from objectives.calibration.statistics import Statistics, input_powers
from objectives.devices.cpu import Cpu
from objectives.evaluation import stage_cache
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.problem import Problem
from objectives.evaluation.timing import CandidateTimer
from objectives.measuring.interleaved import Interleaved
from objectives.models import Checkpoint, LoadedModel
from objectives.protocols.candidate import Candidate
from objectives.protocols.readings import Peaks
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.torch import Torch
from objectives.tasks.partial_scores import batches, merged
from objectives.tasks.progress import SoFar
from objectives.tasks.resampling import replicates_of
from objectives.types import Decision, Failure, Gate, Head, Measurement, Reason, Score, Verdict
from objectives.workloads.generation import Generation

pytestmark = pytest.mark.usefixtures("traced_once")

TOTAL = 600
QUICK = Interleaved(warmups=0, min_rounds=1, max_rounds=1, strain=1.0, slowdown=1e9)
FLOOR = Gate(0.72, 0.01, skip_timing_if_missed=True)  # 0.9 of the dense model's accuracy
SLOW = {"speedup": 0.0, "peak_memory": 1.0}


@dataclass(frozen=True)
class Hits:
    """The dense model is right on the first 80 % of the examples; ``wrong``: the share that others lose."""

    wrong: float = 0.0
    head: Head = "causal_lm"
    seen: ClassVar[list[int]] = []

    def calibration(self, _model: LoadedModel) -> Domains:
        return {"toy": [torch.randint(2, 128, (4, 16), generator=torch.Generator().manual_seed(0))]}

    def evaluate(self, model: TorchRunner) -> Score:
        return merged(list(self.parts(model, range(TOTAL))))

    def parts(self, model: TorchRunner, order: Sequence[int]) -> Iterator[Score]:
        limit = 0.8 if not model.model.widths else 0.8 - self.wrong
        for chosen in batches(order, 20):
            self.seen.extend(chosen)
            examples = tuple(float(index < limit * TOTAL) for index in chosen)
            yield Score(0.0, 0.0, examples, {"perplexity": 2.0}, tuple(f"e{index}" for index in chosen))


@dataclass(frozen=True)
class Whole:
    """The same, for those who can only score everything."""

    inner: Hits = field(default_factory=Hits)

    @property
    def head(self) -> Head:
        return self.inner.head

    def calibration(self, model: LoadedModel) -> Domains:
        return self.inner.calibration(model)

    def evaluate(self, model: TorchRunner) -> Score:
        return self.inner.evaluate(model)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.evaluation.timing.peaks", lambda _device, _key: Peaks(1e10, {"float32": 1e11}))
    monkeypatch.setattr("objectives.evaluation.model_pool.WORTH_KEEPING", 0.0)
    Hits.seen.clear()


@pytest.fixture
def problem(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Problem:
    checkpoint = Checkpoint(path=str(tiny_folder("mistral")), head="causal_lm")
    cache = Cache(folder=str(tmp_path / "cache"))
    return Problem(checkpoint, Hits(), Cpu(threads=1), QUICK, candidate(), cache)


def candidate(ratio: float = 0.0, bits: Any = 16, batch: int = 1) -> Candidate:
    workload = Generation(batch_size=batch, prompt_tokens=4, new_tokens=2)
    return Candidate(Structured(ratio=ratio), RoundToNearest(bits=bits), workload, Off(), Torch())


def measured(outcome: object) -> Measurement:
    assert isinstance(outcome, Measurement), outcome
    return outcome


def test_a_pruned_model_that_was_kept_knows_the_powers_of_its_inputs(problem: Problem) -> None:
    chosen, wanted = candidate(0.25), dict[str, Any]()
    for _ in range(2):  # made, and read again
        pool = Evaluator(problem).pool
        found = input_powers(pool.model(chosen), pool.statistics)
        for name, power in found.items():
            assert len(power) == pool.model(chosen).module.get_submodule(name).in_features
            assert torch.equal(power, wanted.setdefault(name, power))
    assert wanted


# ---- the gate


def test_a_model_that_clearly_misses_the_floor_is_not_scored_in_full_and_not_timed(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, task=Hits(wrong=0.4), cache=None))
    found = measured(evaluate(candidate(0.5), FLOOR))
    assert found.facts.verdict.decision == "missed"
    assert found.metrics["examples"] < TOTAL / 2
    assert "throughput" not in found.metrics
    assert "weight_bytes" in found.metrics
    assert any("not timed" in note.text for note in found.notes)
    assert found.metrics["accuracy"] == pytest.approx(0.4, abs=0.1)
    assert found.metrics["accuracy_interval.low"] <= 0.4 <= found.metrics["accuracy_interval.high"] < 0.72
    assert len(found.samples["accuracy"]) == len(found.ids) == found.metrics["examples"]


def test_a_model_that_keeps_the_floor_is_timed_on_few_examples(problem: Problem) -> None:
    found = measured(Evaluator(replace(problem, cache=None))(candidate(0.5), FLOOR))
    assert found.facts.verdict.decision == "reached"
    assert found.metrics["examples"] < TOTAL / 2
    assert found.metrics["accuracy"] == pytest.approx(0.8)
    assert "throughput" in found.metrics
    assert "perplexity" not in found.metrics  # of some examples it would not compare


def test_it_is_told_how_far_the_baseline_and_a_race_are_that_may_end_early(
    problem: Problem, heard: list[SoFar | None]
) -> None:
    evaluate = Evaluator(replace(problem, task=Hits(wrong=0.4), cache=None))
    evaluate.score(evaluate.problem.baseline)
    whole = [far for far in heard if far is not None]
    assert (whole[-1].done, whole[-1].total, whole[-1].may_end_early) == (TOTAL, TOTAL, False)
    assert heard[-1] is None
    heard.clear()
    evaluate(candidate(0.5), FLOOR)
    raced = [far for far in heard if far is not None]
    assert raced[-1].done < raced[-1].total == TOTAL
    assert all(far.may_end_early for far in raced)
    assert heard[-1] is None


def test_without_skipping_what_misses_the_floor_is_timed_too(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, task=Hits(wrong=0.4), cache=None))
    assert "throughput" in measured(evaluate(candidate(0.5), replace(FLOOR, skip_timing_if_missed=False))).metrics


def test_the_baseline_and_tasks_without_parts_are_scored_in_full(problem: Problem) -> None:
    assert measured(Evaluator(problem)(candidate(), FLOOR)).metrics["examples"] == TOTAL
    whole = Evaluator(replace(problem, task=Whole(Hits(wrong=0.4))))
    found = measured(whole(candidate(0.5), FLOOR))
    assert (found.metrics["examples"], found.facts.verdict.method) == (TOTAL, "exact")
    assert "throughput" not in found.metrics


@dataclass(frozen=True)
class Corpus(Hits):
    """The same hits by their F1, which is of all examples together, though single ones could be scored."""

    def evaluate(self, model: TorchRunner) -> Score:
        hits = np.array(super().evaluate(model).examples)
        counts = np.stack([hits, 1 - hits], axis=1)

        def f1(sums: Any) -> Any:
            return 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1])

        names = tuple(f"e{index}" for index in range(TOTAL))
        return Score(float(f1(counts.sum(axis=0))), 0.0, tuple(hits), ids=names, replicates=replicates_of(counts, f1))


def test_a_metric_of_the_corpus_is_scored_in_full_with_an_interval_and_found_again(problem: Problem) -> None:
    problem = replace(problem, task=Corpus(wrong=0.4))
    start, found = (measured(Evaluator(problem)(one, FLOOR)) for one in (candidate(), candidate(0.5)))
    assert (found.metrics["examples"], found.facts.verdict) == (TOTAL, Verdict(Decision.MISSED, "exact"))
    assert found.metrics["accuracy_replicates"] == len(found.samples["replicates"]) == 1000
    assert found.metrics["accuracy_stderr"] == pytest.approx(np.std(found.samples["replicates"], ddof=1))
    assert found.metrics["accuracy"] == pytest.approx(2 * 0.4 / 1.4)
    differences = np.subtract(found.samples["replicates"], start.samples["replicates"])
    low, high = np.quantile(differences, (0.025, 0.975))
    assert found.metrics["accuracy_difference"] == pytest.approx(2 * 0.4 / 1.4 - 1.6 / 1.8)
    assert (found.metrics["accuracy_difference.low"], found.metrics["accuracy_difference.high"]) == (low, high)
    Hits.seen.clear()
    again = measured(Evaluator(replace(problem))(candidate(0.5), FLOOR))
    assert Hits.seen == []
    assert again.samples["replicates"] == found.samples["replicates"]
    assert again.metrics["accuracy_difference.low"] == low


def test_a_mean_has_no_replicates_among_its_figures(problem: Problem) -> None:
    found = measured(Evaluator(problem)(candidate()))
    assert "accuracy_replicates" not in found.metrics
    assert "replicates" not in found.samples


def test_another_floor_goes_on_where_the_last_race_stopped(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, task=Hits(wrong=0.04), cache=None))
    evaluate(candidate())
    Hits.seen.clear()
    first = measured(evaluate(candidate(0.5), replace(FLOOR, floor=0.56)))
    count = len(Hits.seen)
    assert count == first.metrics["examples"] < TOTAL
    second = measured(evaluate(candidate(0.5), replace(FLOOR, floor=0.752)))
    assert second.metrics["examples"] > count
    assert len(Hits.seen) == len(set(Hits.seen)) == second.metrics["examples"]
    known = dict(zip(second.ids, second.samples["accuracy"]))
    assert all(known[name] == example for name, example in zip(first.ids, first.samples["accuracy"]))


def test_a_race_over_all_examples_is_the_score_as_if_made_at_once(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, task=Hits(wrong=0.08), cache=None))
    gate = Gate(0.72, 1e-12)
    raced, whole = evaluate(candidate(0.5), gate), evaluate(candidate(0.5, batch=2))
    names = ("accuracy", "accuracy_stderr", "accuracy_difference", "perplexity", "examples")
    assert {name: measured(raced).metrics[name] for name in names} == pytest.approx(
        {name: measured(whole).metrics[name] for name in names}
    )
    assert measured(raced).ids == measured(whole).ids
    assert measured(raced).samples["accuracy"] == measured(whole).samples["accuracy"]


@dataclass(frozen=True)
class Broken(Hits):
    """A pruned model whose later answers are no numbers."""

    def parts(self, model: TorchRunner, order: Sequence[int]) -> Iterator[Score]:
        for index, part in enumerate(super().parts(model, order)):
            broken = bool(model.model.widths) and index == 1
            yield replace(part, examples=(math.nan,) * len(part.examples)) if broken else part


@pytest.mark.parametrize("gate", [None, FLOOR])
def test_answers_that_are_no_numbers_fail_the_trial_and_are_not_kept(problem: Problem, gate: Gate | None) -> None:
    evaluate = Evaluator(replace(problem, task=Broken()))
    for _ in range(2):
        outcome = evaluate(candidate(0.5), gate)
        assert isinstance(outcome, Failure), outcome
        assert outcome.reason is Reason.NOT_FINITE


# ---- the cache


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is really done."""
    done: list[str] = []
    prune, ran = Structured.prune_, CandidateTimer._ran

    def pruned(self: Structured, *arguments: Any) -> None:
        if self.ratio:
            done.append("prune")
        prune(self, *arguments)

    def timed(self: CandidateTimer, *arguments: Any) -> Any:
        done.append("time")
        return ran(self, *arguments)

    monkeypatch.setattr(Structured, "prune_", pruned)
    monkeypatch.setattr(CandidateTimer, "_ran", timed)
    return done


def test_another_process_finds_everything_and_does_nothing(problem: Problem, work: list[str]) -> None:
    first = [measured(Evaluator(problem)(one)) for one in (candidate(), candidate(0.5, 8))]
    work.clear()
    Hits.seen.clear()
    evaluate = Evaluator(replace(problem))
    again = [measured(evaluate(one)) for one in (candidate(), candidate(0.5, 8))]
    assert (work, Hits.seen) == ([], [])
    for one, other in zip(first, again):
        spent = ("compress_seconds", "score_seconds", "run_seconds", "saved_seconds")
        assert {k: v for k, v in one.metrics.items() if k not in spent} == {
            k: v for k, v in other.metrics.items() if k not in spent
        }
        assert (one.samples, one.ids, one.facts, one.notes) == (other.samples, other.ids, other.facts, other.notes)
        assert other.metrics["saved_seconds"] > 0
        assert other.metrics["score_seconds"] == 0


def test_another_batch_size_needs_timing_only_and_the_model_as_it_was_kept(problem: Problem, work: list[str]) -> None:
    Evaluator(problem)(candidate(0.5, 8))
    work.clear()
    Hits.seen.clear()
    found = measured(Evaluator(problem)(candidate(0.5, 8, batch=2)))
    assert "prune" not in work
    assert "time" in work
    assert Hits.seen == []
    assert found.metrics["score_seconds"] == 0


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (lambda problem: replace(problem, task=Hits(wrong=0.1)), {"score"}),
        (lambda problem: replace(problem, timing=replace(QUICK, max_rounds=2)), {"time"}),
        (lambda problem: replace(problem, cache=None), {"prune", "score", "time"}),
    ],
)
def test_what_could_change_a_result_is_not_answered_from_the_cache(
    problem: Problem, work: list[str], change: Callable[[Problem], Problem], redone: set[str]
) -> None:
    Evaluator(problem)(candidate(0.5))
    work.clear()
    Hits.seen.clear()
    Evaluator(change(problem))(candidate(0.5))
    assert {*work, *(["score"] if Hits.seen else [])} >= redone
    assert ("time" in work) == ("time" in redone)


@dataclass(frozen=True)
class Rated(Hits):
    """The same, by a metric of a package."""

    packages: ClassVar[tuple[str, ...]] = ("rouge-score", "not-installed")


@pytest.mark.parametrize(
    ("task", "upgraded", "redone"),
    [
        (Rated(), "rouge-score", {"score"}),
        (Rated(), "not-installed", {"score"}),
        (Rated(), "sacrebleu", set()),
        (Hits(), "rouge-score", set()),
    ],
)
def test_another_version_of_what_a_metric_is_computed_with_is_scored_again_and_nothing_else(
    problem: Problem, work: list[str], monkeypatch: pytest.MonkeyPatch, task: Hits, upgraded: str, redone: set[str]
) -> None:
    problem = replace(problem, task=task)
    Evaluator(problem)(candidate(0.5))
    work.clear()
    Hits.seen.clear()
    monkeypatch.setattr(stage_cache, "version", lambda name: "99" if name == upgraded else version(name))
    Evaluator(problem)(candidate(0.5))
    assert ({"score"} if Hits.seen else set()) == redone
    assert "time" not in work


def _flipped(entry: Path) -> None:
    weights = entry / "paretune.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))


def _answering_otherwise(entry: Path) -> None:
    manifest = json.loads((entry / "paretune.json").read_text())
    manifest["attributes"] = {"model.layers.1.self_attn": {"scaling": 0.3}}
    (entry / "paretune.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [_flipped, _answering_otherwise])
def test_a_damaged_model_is_made_again(
    problem: Problem, work: list[str], caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    Evaluator(problem)(candidate(0.5))
    assert problem.cache is not None
    (entry,) = Path(problem.cache.folder).glob("compress/*")
    damage(entry)
    work.clear()
    with caplog.at_level(logging.WARNING):
        measured(Evaluator(problem)(candidate(0.5, batch=2)))
    assert "damaged and will be made again" in caplog.text
    assert "prune" in work


def test_what_was_timed_on_a_busy_machine_is_timed_again(
    problem: Problem, work: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CandidateTimer.run

    def busy(self: CandidateTimer, *arguments: Any) -> Any:
        ran = run(self, *arguments)
        return replace(ran, metrics={**ran.metrics, "contended": 1.0})

    with monkeypatch.context() as patched:
        patched.setattr(CandidateTimer, "run", busy)
        Evaluator(problem)(candidate(0.5))
    work.clear()
    Evaluator(problem)(candidate(0.5))
    assert "time" in work
    assert "prune" not in work


class Opaque:
    """No dataclass: nobody knows what it holds."""

    head: Head = "causal_lm"
    inner = Hits()

    def calibration(self, model: LoadedModel) -> Domains:
        return self.inner.calibration(model)

    def evaluate(self, model: TorchRunner) -> Score:
        return self.inner.evaluate(model)


def test_scores_of_a_task_that_cannot_be_described_are_not_kept(problem: Problem) -> None:
    for _ in range(2):
        Hits.seen.clear()
        assert measured(Evaluator(replace(problem, task=Opaque()))(candidate(0.5)))
        assert Hits.seen


def test_of_two_processes_the_one_that_scored_more_is_kept(problem: Problem) -> None:
    """The first goes on from what it knew when the second had scored everything meanwhile."""
    problem = replace(problem, task=Hits(wrong=0.3))
    first = Evaluator(problem)
    measured(first(candidate(0.5), FLOOR))
    assert len(Evaluator(problem).score(candidate(0.5)).examples) == TOTAL
    harder = measured(first(candidate(0.5), replace(FLOOR, floor=0.56)))
    assert harder.metrics["examples"] < TOTAL
    Hits.seen.clear()
    assert len(Evaluator(problem).score(candidate(0.5)).examples) == TOTAL
    assert Hits.seen == []


# ---- timed before scored


def test_what_is_behind_another_is_not_scored(problem: Problem, work: list[str]) -> None:
    evaluate = Evaluator(replace(problem, cache=None))
    baseline = measured(evaluate(candidate()))
    Hits.seen.clear()
    gate = replace(FLOOR, timed_first=True, incumbents=({"speedup": 1e9, "peak_memory": 1.0},))
    found = measured(evaluate(candidate(0.5), gate))
    assert Hits.seen == []
    assert found.facts.verdict.decision == "unscored"
    assert "accuracy" not in found.metrics
    assert "accuracy" not in found.samples
    assert found.metrics["speedup"] > 0
    assert found.metrics["run_seconds"] > 0
    assert any("not scored" in note.text for note in found.notes)
    assert baseline.metrics["accuracy"] == pytest.approx(0.8)


def test_times_are_compared_at_the_pace_of_the_baseline(problem: Problem) -> None:
    """A member had its latency while the baseline took a hundred seconds: this candidate would have been slower."""
    evaluate = Evaluator(replace(problem, cache=None))
    base = measured(evaluate(candidate()))
    own = measured(evaluate(candidate(0.5)))
    relative = own.metrics["latency.p50"] / own.metrics["reference_latency"]
    for factor, verdict in ((0.2, "unscored"), (20.0, "reached")):
        incumbents = {"latency.p50": 100 * relative * factor, "peak_memory": 1.0}
        gate = replace(FLOOR, timed_first=True, incumbents=(incumbents,), pace=100.0)
        assert measured(evaluate(candidate(0.5), gate)).facts.verdict.decision == verdict
    gate = replace(FLOOR, timed_first=True, incumbents=({"latency.p50": 100 * relative * 0.2, "peak_memory": 1.0},))
    assert (
        measured(evaluate(candidate(0.5), gate)).facts.verdict.decision == "reached"
    )  # as if the clock had not changed
    assert base.metrics["reference_latency"] < 10


def test_what_is_ahead_in_something_is_timed_once_and_scored(problem: Problem, work: list[str]) -> None:
    evaluate = Evaluator(replace(problem, cache=None))
    evaluate(candidate())
    work.clear()
    gate = replace(
        FLOOR, timed_first=True, incumbents=({"speedup": 0.0, "peak_memory": 1.0}, {"speedup": 1e9, "peak_memory": 1.0})
    )
    slow = replace(
        FLOOR,
        timed_first=True,
        incumbents=({"speedup": 1e9, "peak_memory": 1e15}, {"speedup": 0.0, "peak_memory": 1.0}),
    )
    assert measured(evaluate(candidate(0.5), gate)).facts.verdict.decision == "unscored"
    found = measured(evaluate(candidate(0.5), slow))
    assert found.facts.verdict.decision == "reached"
    assert found.metrics["accuracy"] == pytest.approx(0.8)
    assert found.metrics["throughput"] > 0


def test_a_miss_that_was_timed_keeps_its_speed(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, task=Hits(wrong=0.4), cache=None))
    found = measured(evaluate(candidate(0.5), replace(FLOOR, timed_first=True, incumbents=(SLOW,))))
    assert found.facts.verdict.decision == "missed"
    assert found.metrics["throughput"] > 0


def test_losses_are_predicted_once_for_each_part_and_kept_for_others(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    predict = Structured.predict

    def counted(self: Structured, statistics: Any) -> float:
        asked.append(self.ratio)
        return predict(self, statistics)

    monkeypatch.setattr(Structured, "predict", counted)
    recipes = [candidate(ratio, bits) for ratio in (0.0, 0.5) for bits in (16, 8, 4)]
    losses = Evaluator(problem).predict_losses(recipes)
    assert asked == [0.0, 0.5]
    assert losses[0] == 0 < losses[1] < losses[2]
    assert losses[3] == pytest.approx(losses[0] + losses[3])
    assert losses[5] == pytest.approx(losses[3] + losses[2])
    assert Evaluator(problem).predict_losses(recipes) == losses
    assert asked == [0.0, 0.5]


def test_a_loss_that_nobody_predicts_is_no_number(problem: Problem) -> None:
    silent = replace(candidate(0.5, 8), quantization=RoundToNearest(bits=8, predicts=False))
    for cache in (problem.cache, None):
        assert math.isnan(Evaluator(replace(problem, cache=cache)).predict_losses([silent])[0])
        assert math.isnan(Evaluator(replace(problem, cache=cache)).predict_losses([silent])[0])


# ---- timed until it is behind


LONG = replace(QUICK, min_rounds=20, max_rounds=20, max_seconds=60.0, precision=1e-9)
"""More rounds than it takes to see who is behind."""
FAR = {"speedup": 1e9, "peak_memory": 1.0}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few milliseconds of timing say who is behind; test_interleaved.py tries how long it takes."""
    monkeypatch.setattr("objectives.measuring.interleaved._SHORTEST_BEHIND", 0.005)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("timed_first", [True, False])
def test_what_is_behind_for_sure_is_timed_no_further_and_that_is_not_kept(problem: Problem, timed_first: bool) -> None:
    evaluate = Evaluator(replace(problem, timing=LONG))
    evaluate(candidate())
    gate = replace(FLOOR, incumbents=(FAR,), timed_first=timed_first)
    found = measured(evaluate(candidate(0.5), gate))
    assert found.facts.timing.stopped == "behind"
    assert found.facts.verdict.decision == ("unscored" if timed_first else "reached")
    assert found.metrics["rounds"] < LONG.max_rounds
    assert any("dominated" in note.text for note in found.notes)
    again = measured(evaluate(candidate(0.5), FLOOR))
    assert again.facts.timing.stopped == "rounds"
    assert again.metrics["rounds"] == LONG.max_rounds
    assert again.metrics["run_seconds"] > 0


@pytest.mark.usefixtures("at_once")
def test_who_needs_less_memory_is_timed_as_well_as_any(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, timing=LONG))
    evaluate(candidate())
    peak = evaluate.predict(candidate(0.5))["predicted_peak"]
    gate = replace(FLOOR, incumbents=({"speedup": 1e9, "peak_memory": 1.01 * peak},))
    assert measured(evaluate(candidate(0.5), gate)).facts.timing.stopped == "rounds"


@pytest.mark.usefixtures("at_once")
def test_objectives_that_only_a_whole_timing_tells_end_none_early(problem: Problem) -> None:
    evaluate = Evaluator(replace(problem, timing=LONG))
    evaluate(candidate())
    gate = replace(FLOOR, incumbents=({"speedup": 1e9, "latency.p95": 1e-9},))
    assert measured(evaluate(candidate(0.5), gate)).facts.timing.stopped == "rounds"


@pytest.mark.usefixtures("at_once")
def test_a_peak_that_was_predicted_too_high_costs_a_second_timing(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Evaluator(replace(problem, timing=LONG))
    evaluate(candidate())
    peak = measured(evaluate(candidate(0.5))).metrics["peak_memory"]
    gate = replace(FLOOR, incumbents=({"speedup": 1e9, "peak_memory": 1.5 * peak},), timed_first=True)
    monkeypatch.setattr("objectives.evaluation.dominance._FORETOLD", -1.0)  # as if twice as much had been predicted
    found = measured(Evaluator(replace(problem, timing=LONG, cache=None))(candidate(0.5), gate))
    assert found.facts.timing.stopped == "rounds"
    assert found.facts.verdict.decision == "reached"


@pytest.mark.usefixtures("at_once")
def test_the_dense_model_is_always_timed_in_full(problem: Problem) -> None:
    """Others of its batch size are compared with it."""
    evaluate = Evaluator(replace(problem, timing=LONG, cache=None))
    evaluate(candidate())
    gate = replace(FLOOR, incumbents=(FAR,), timed_first=True)
    assert measured(evaluate(candidate(batch=2), gate)).facts.timing.stopped == "rounds"
    assert measured(evaluate(candidate(0.5, batch=2), gate)).facts.timing.stopped == "behind"


def test_statistics_are_gathered_once_by_all_that_share_a_cache(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Evaluator(problem).pool
    moments, gradients = first.statistics.moments, first.statistics.gradients
    for kind in ("moments", "gradients"):
        monkeypatch.setattr(Statistics, kind, property(lambda _self: pytest.fail("gathered again")))
    second = Evaluator(problem).pool.statistics
    for key, moment in moments.items():
        assert torch.equal(second.moments[key].second, moment.second)
        assert torch.equal(second.gradients[key], gradients[key]) if key in gradients else True
    assert second.gradients.keys() == gradients.keys()


def test_statistics_that_are_damaged_or_too_large_are_gathered_again(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Evaluator(problem).pool.statistics.moments
    assert problem.cache is not None
    for file in Path(problem.cache.folder).glob("statistics/*/*.safetensors"):
        damaged = bytearray(file.read_bytes())
        damaged[-3] ^= 1
        file.write_bytes(damaged)
    again = Evaluator(problem).pool.statistics.moments
    assert all(torch.equal(again[key].second, moment.second) for key, moment in moments.items())
    shutil.rmtree(Path(problem.cache.folder) / "statistics")
    monkeypatch.setattr("objectives.evaluation.kept_statistics.MOST_BYTES", 0)
    assert Evaluator(problem).pool.statistics.moments.keys() == moments.keys()
    assert not list(Path(problem.cache.folder).glob("statistics/*"))
