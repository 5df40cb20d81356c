"""An evaluator measures candidates, shares what they share, and gives failures as values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.calibration import statistics as calibration
from objectives.calibration.moments import Domains
from objectives.devices.cpu import Cpu
from objectives.devices.stopwatch import WallStopwatch
from objectives.errors import ModelError, Unsupported
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.failures import is_out_of_memory
from objectives.evaluation.problem import Problem
from objectives.evaluation.timing import DENSE_TRIES, CandidateTimer
from objectives.measuring.bench import Bench
from objectives.measuring.interleaved import Interleaved
from objectives.metrics import CONDITIONS, METRICS
from objectives.models import Checkpoint, LoadedModel
from objectives.protocols.candidate import Candidate
from objectives.protocols.readings import Peaks
from objectives.protocols.running import PhaseObserver
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.pruning.wanda import Wanda
from objectives.quantization.gptq import Gptq
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.distillation import Distillation
from objectives.recovery.off import Off
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.torch import Torch
from objectives.types import (
    Facts,
    Failure,
    GainFacts,
    Head,
    Measurement,
    Phase,
    Reason,
    Reference,
    Score,
    Size,
    Speed,
    Stop,
    TimingFacts,
)
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from objectives.workloads.reference import ReferenceWorkload

pytestmark = pytest.mark.usefixtures("traced_once")

Folder = Callable[[str], Path]


@dataclass
class Toy:
    """A task that logs what it is asked; ``act`` may raise or change the score."""

    head: Head = "causal_lm"
    act: Callable[[TorchRunner], float] = lambda _model: 0.5
    scored: list[float] = field(default_factory=list)
    extra: dict[str, float] = field(default_factory=lambda: {"perplexity": 9.0})
    calibrated: int = 0

    def calibration(self, _model: LoadedModel) -> Domains:
        self.calibrated += 1
        return {"toy": [torch.randint(2, 128, (4, 16), generator=torch.Generator().manual_seed(0))]}

    def evaluate(self, model: TorchRunner) -> Score:
        self.scored.append(self.act(model))
        found = self.scored[-1]
        return Score(found, 0.01, (found - 0.25, found + 0.25), self.extra, ids=("first", "second"))


def candidate(ratio: float = 0.0, bits: Any = 16, batch: int = 1, workload: Any = None) -> Candidate:
    generation = Generation(batch_size=batch, prompt_tokens=4, new_tokens=2)
    return Candidate(Structured(ratio=ratio), RoundToNearest(bits=bits), workload or generation, Off(), Torch())


QUICK = Interleaved(warmups=0, min_rounds=1, max_rounds=1, strain=1.0, slowdown=1e9)
"""No round is repeated, however busy the machine is."""


@pytest.fixture(autouse=True)
def _peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a device that nobody measured."""
    monkeypatch.setattr("objectives.evaluation.timing.peaks", lambda _device, _key: Peaks(1e10, {"float32": 1e11}))


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def problem(tiny_folder: Folder, toy: Toy) -> Problem:
    checkpoint = Checkpoint(path=str(tiny_folder("mistral")), head="causal_lm")
    return Problem(checkpoint, toy, Cpu(threads=1), QUICK, candidate())


@pytest.fixture
def evaluate(problem: Problem) -> Evaluator:
    return Evaluator(problem)


def measured(outcome: object) -> Measurement:
    assert isinstance(outcome, Measurement), outcome
    return outcome


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def test_the_baseline_is_measured_against_itself(evaluate: Evaluator) -> None:
    metrics = measured(evaluate(candidate())).metrics
    assert (metrics["speedup"], metrics["pruning_ratio"], metrics["effective_bits"]) == (1.0, 0.0, 16.0)
    assert metrics["accuracy"] == 0.5
    assert metrics["perplexity"] == 9.0


KNOWN = METRICS.keys() | CONDITIONS.keys()
ELSEWHERE = {
    "chance", "length_ratio", "length_ratio.least", "length_ratio.most",
    "accuracy_replicates",
    *(f"{name}{end}" for name in ("own_speedup", "runtime_speedup") for end in ("", ".low", ".high", ".error")),
    "runtime_bytes", "conversion_seconds",  # of other runtimes
    "memory_ratio", "speedup.trial", "energy", "reserved_peak", "process_memory", "floor", "accuracy_interval.low",
    "accuracy_interval.high",
}  # fmt: skip
"""Added by the study, counted by some machines only, of a race, or of a metric of all examples together."""
OF_ENCODERS = {"encode", "activation_peak.encode", "roofline.encode"}
OF_LOADS = {
    "itl", "request_throughput", "prompt_throughput", "goodput",
    *(name for name in METRICS if name.partition(".")[0] in ("ttft", "tpot", "itl") and "." in name),
}  # fmt: skip
OF_GPUS = {"temperature", "sm_clock", "throttled", "other_processes"}


def test_every_metric_of_the_tables_is_measured_and_no_other(evaluate: Evaluator) -> None:
    for one in (candidate(), candidate(0.5, 4)):
        metrics = measured(evaluate(one)).metrics
        assert metrics.keys() - {"energy"} == KNOWN - ELSEWHERE - OF_ENCODERS - OF_LOADS - OF_GPUS
        assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
        assert metrics["peak_memory"] == metrics["weight_bytes"] + metrics["activation_peak"]
        assert metrics["predicted_peak"] == pytest.approx(metrics["peak_memory"], rel=0.05, abs=64 * 1024)


def test_the_metrics_of_each_domain_come_under_their_own_names(evaluate: Evaluator, toy: Toy) -> None:
    """The one kind of name that no table can hold."""
    toy.extra = {"accuracy.english": 0.4, "accuracy.french": 0.6, "perplexity.english": 3.0}
    names = measured(evaluate(candidate())).metrics.keys()
    assert names > toy.extra.keys()
    assert all(name in KNOWN or name.startswith(("accuracy.", "perplexity.")) for name in names)


def test_a_simulated_width_has_an_accuracy_but_neither_speed_nor_bytes(evaluate: Evaluator) -> None:
    rounded = replace(candidate(), quantization=RoundToNearest(bits=3, simulate=True))
    outcome = measured(evaluate(rounded))
    assert outcome.metrics.keys() == {
        "accuracy", "accuracy_stderr", "accuracy_difference", "accuracy_difference.low", "accuracy_difference.high",
        "perplexity", "pruning_ratio", "predicted_loss", "examples", "compress_seconds", "score_seconds",
        "run_seconds", "saved_seconds",
    }  # fmt: skip
    assert outcome.samples.keys() == {"accuracy"}
    assert outcome.notes[0].code == "simulated"
    assert outcome.facts == Facts()
    assert "predicted_peak" not in evaluate.predict(rounded)


def test_a_simulated_trial_whose_accuracy_is_no_number_fails_too(evaluate: Evaluator, toy: Toy) -> None:
    toy.act = lambda _model: math.nan
    rounded = replace(candidate(), quantization=RoundToNearest(bits=3, simulate=True))
    assert failed(evaluate(rounded)).reason == Reason.NOT_FINITE


@pytest.mark.parametrize(
    ("pruning", "bits"),
    [
        (Structured(ratio=0.3), 16),
        (Structured(ratio=0.5, depth_share=0.6), 16),
        (Depth(ratio=0.5), 16),
        (Structured(), 4),
        (Structured(), 8),
    ],
)
def test_what_is_predicted_beforehand_is_what_building_finds(evaluate: Evaluator, pruning: Any, bits: Any) -> None:
    chosen = replace(candidate(), pruning=pruning, quantization=Gptq(bits=bits))
    predicted = evaluate.predict(chosen)
    assert not evaluate.pool.built
    metrics = measured(evaluate(chosen)).metrics
    assert predicted["predicted_loss"] == pytest.approx(metrics["predicted_loss"], rel=1e-4)
    assert predicted["predicted_loss"] > 0
    assert predicted["predicted_peak"] == metrics["predicted_peak"]
    assert predicted["predicted_peak"] == pytest.approx(metrics["peak_memory"], rel=0.05, abs=64 * 1024)


def test_predictions_add_up_and_know_what_they_cannot_tell(evaluate: Evaluator) -> None:
    def predicted(**parts: Any) -> float:
        return evaluate.predict(replace(candidate(workload=read), **parts)).get("predicted_loss", math.nan)

    pruned, rounded, read = Structured(ratio=0.4), Gptq(bits=4), Generation(prompt_tokens=2, new_tokens=1)
    assert predicted() == 0
    both = predicted(pruning=pruned, quantization=rounded)
    assert both == pytest.approx(predicted(pruning=pruned) + predicted(quantization=rounded))
    assert predicted(pruning=Structured(ratio=0.6)) > predicted(pruning=pruned)
    assert len({predicted(quantization=Mixed(bits=bits)) for bits in (16.0, 8.0, 6.0, 5.0, 4.6)}) + 1 > 4
    for blind in (Wanda(ratio=0.5), Structured(ratio=0.4, criterion=Magnitude())):
        assert math.isnan(predicted(pruning=blind))
    assert math.isnan(predicted(pruning=pruned, recovery=Distillation(steps=1)))
    assert predicted(recovery=Distillation(steps=1)) == 0  # nothing was pruned, so nothing is trained
    with pytest.raises(Unsupported, match="cannot be met"):
        predicted(pruning=Structured(ratio=0.99))


def test_raw_samples_and_notes_are_kept(evaluate: Evaluator) -> None:
    outcome = measured(evaluate(candidate(0.6, 4, batch=3)))
    assert {name: len(values) for name, values in outcome.samples.items()} == {
        "latency": 1, "cpu": 1, "ttft": 1, "tpot": 1, "speedup": 1, "accuracy": 2,
    }  # fmt: skip
    assert any("32 inputs fit no group of 64" in note.text for note in outcome.notes)
    assert outcome.ids == ("first", "second")


def test_metrics_of_decoders_are_absent_for_encoders(problem: Problem, tiny_folder: Folder) -> None:
    encoder = Checkpoint(path=str(tiny_folder("bert")), head="encoder")
    baseline = candidate(workload=Encoding(tokens=8))
    evaluate = Evaluator(replace(problem, model=encoder, task=Toy("encoder"), baseline=baseline))
    metrics = measured(evaluate(replace(baseline, pruning=Structured(ratio=0.4)))).metrics
    assert KNOWN - metrics.keys() - {"energy"} == (ELSEWHERE - {"energy"}) | OF_LOADS | OF_GPUS | {
        "encode", "activation_peak.encode", "activation_peak.prefill", "activation_peak.decode", "cache_bytes",
        "roofline.prefill", "roofline.decode", "ttft", "tpot", "per_token", "prefill_throughput", "decode_throughput",
        "kv_bytes_per_token",
    }  # fmt: skip


def test_compression_shows_in_the_bytes(evaluate: Evaluator) -> None:
    dense, small = (measured(evaluate(one)).metrics for one in (candidate(), candidate(0.5, 4)))
    assert small["pruning_ratio"] == pytest.approx(0.5, abs=0.03)
    assert 4.5 <= small["effective_bits"] <= 5
    quotient = small["effective_bits"] / 16 * (1 - small["pruning_ratio"])
    norms = 2 * 2 * 64 * 4  # fp32 or bf16 by CPU
    assert small["block_bytes"] - dense["block_bytes"] * quotient < norms
    saved = dense["weight_bytes"] - small["weight_bytes"]
    assert saved == dense["block_bytes"] - small["block_bytes"]


def test_accuracy_is_scored_once_per_recipe_and_calibration_is_done_once(evaluate: Evaluator, toy: Toy) -> None:
    toy.act = lambda _model: 0.5 + len(toy.scored) / 100
    order = [(0.0, 16, 1), (0.5, 16, 1), (0.5, 16, 2), (0.0, 8, 2), (0.0, 16, 2), (0.5, 16, 1)]
    found = [measured(evaluate(candidate(*each))).metrics["accuracy"] for each in order]
    assert found == [0.5, 0.51, 0.51, 0.52, 0.5, 0.51]
    assert len(toy.scored) == 3
    assert toy.calibrated == 1


@pytest.mark.parametrize(("kept", "expected"), [(0, [0.0, 0.5, 0.25, 0.5]), (1 << 30, [0.0, 0.5, 0.25])])
def test_compressed_models_are_kept_within_a_budget(
    evaluate: Evaluator, monkeypatch: pytest.MonkeyPatch, kept: int, expected: list[float]
) -> None:
    built: list[tuple[float, int]] = []
    prune_ = Structured.prune_

    def watched(self: Structured, *args: Any) -> None:
        built.append((self.ratio, 0))
        prune_(self, *args)

    monkeypatch.setattr(Structured, "prune_", watched)
    monkeypatch.setattr("objectives.evaluation.model_pool.KEPT_BYTES", kept)
    for ratio, batch in ((0.5, 1), (0.5, 2), (0.0, 1), (0.5, 2), (0.25, 1), (0.5, 1)):
        evaluate(candidate(ratio, batch=batch))
    assert [ratio for ratio, _ in built] == expected  # the baseline gives the moments, so it is first


def test_the_same_recipe_gives_the_same_model_whenever_it_is_asked_for(evaluate: Evaluator) -> None:
    first = evaluate.compressed(candidate(0.5, 4)).module.state_dict()
    evaluate.compressed(candidate(0.25, 8))
    again = evaluate.compressed(candidate(0.5, 4)).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


class Clock:
    """Stands still but for scripted runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[Any, LoadedModel]] = []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("devices.stopwatch", "measuring.interleaved"):
        monkeypatch.setattr(f"objectives.{module}.perf_counter", lambda: clock.now)
    monkeypatch.setattr("objectives.measuring.pace._MOST_REPEATS", 1)  # a probe never fills its time
    return clock


@dataclass(frozen=True)
class Scripted:
    """A workload that logs the model it is timed on and takes the next of its latencies."""

    clock: Clock = field(compare=False)
    latencies: tuple[float, ...]
    batch_size: int = 1
    head: Head = "causal_lm"
    items: int = 1
    tokens_read: int = 1

    def representative_runs(self) -> dict[Phase, Scripted]:
        return {"prefill": self}

    def run(self, model: TorchRunner, watch: PhaseObserver) -> None:
        watch.start(1)
        with torch.inference_mode():
            model.module(input_ids=torch.ones(1, 2, dtype=torch.long))
        if isinstance(watch, WallStopwatch):
            mine = sum(workload is self for workload, _ in self.clock.log)
            self.clock.log.append((self, model.model))
            self.clock.now += self.latencies[mine % len(self.latencies)]
        watch.end_phase("prefill")


def scripted(problem: Problem, ticking: Clock, *latencies: float, **timing: Any) -> Evaluator:
    """An evaluator whose baseline takes so many seconds."""
    changes = replace(QUICK, **timing)
    return Evaluator(replace(problem, timing=changes, baseline=candidate(workload=Scripted(ticking, latencies))))


@pytest.mark.parametrize(("rounds", "median"), [(3, 2.0), (4, 2.5)])
def test_the_speedup_is_the_median_of_paired_ratios_with_the_baseline(
    problem: Problem, clock: Clock, rounds: int, median: float
) -> None:
    evaluate = scripted(problem, clock, 12.0, min_rounds=rounds, max_rounds=rounds, max_seconds=100.0)
    mine = Scripted(clock, (12.0, 6.0, 4.0, 3.0)[:rounds])
    one = candidate(0.5, workload=mine)
    outcome = measured(evaluate(one))
    assert outcome.samples["speedup"] == (1.0, 2.0, 3.0, 4.0)[:rounds]
    assert outcome.metrics["speedup"] == median
    small, dense = evaluate.compressed(one), evaluate.compressed(candidate())
    turns = [[dense, small], [small, dense]] * 2
    assert [model for _, model in clock.log[: 2 * rounds]] == list(chain(*turns[:rounds]))


def test_the_baseline_at_another_batch_size_is_still_timed_beside_the_baseline(problem: Problem, clock: Clock) -> None:
    evaluate = scripted(problem, clock, 4.0)
    mine = Scripted(clock, (2.0,), batch_size=2)
    metrics = measured(evaluate(candidate(workload=mine))).metrics
    assert metrics["speedup"] == 2.0
    assert [metrics[f"compression_speedup{end}"] for end in ("", ".low", ".high", ".error")] == [1.0, 1.0, 1.0, 0.0]
    assert metrics["batching_speedup"] == 2.0


# ---- what it is timed beside


def test_facts_say_how_it_was_timed(problem: Problem, clock: Clock) -> None:
    evaluate = scripted(problem, clock, 4.0, clock="cpu")
    baseline = evaluate.problem.baseline
    assert measured(evaluate(baseline)).facts == Facts(TimingFacts(Stop.ROUNDS, Reference.ITSELF, "cpu"))
    evaluate = scripted(problem, clock, 4.0, min_rounds=6, max_rounds=6)
    own, of_dense = (2.0,) * 6, (6.0,) * 6
    facts = measured(evaluate(candidate(0.5, 8, workload=Scripted(clock, own + of_dense)))).facts
    timed = TimingFacts(Stop.PRECISION, Reference.BASELINE, "wall")
    assert facts == Facts(timed, gains=GainFacts(Speed.FASTER, Size.SMALLER))
    own, of_dense = (5.0,) * 6, (4.0,) * 6
    facts = measured(evaluate(candidate(0.5, 8, workload=Scripted(clock, own + of_dense)))).facts
    assert facts.gains is not None
    assert (facts.gains.speed, facts.gains.memory) == ("slower", "smaller")
    assert facts.gains.speed_reason


@pytest.mark.parametrize("reference", ["auto", "baseline", "sentinel"])
def test_the_sentinel_gives_the_same_speedup_as_the_baseline(
    problem: Problem, clock: Clock, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """Each against its own neighbour; the stand-in takes 2 s, the baseline 12, the candidate 3."""
    stand_in = Scripted(clock, (2.0,))
    monkeypatch.setattr(ReferenceWorkload, "run", lambda _self, model, watch: stand_in.run(model, watch))
    evaluate = scripted(problem, clock, 12.0, reference=reference, min_rounds=6, max_rounds=6)
    outcome = measured(evaluate(candidate(0.5, workload=Scripted(clock, (3.0,)))))
    assert outcome.metrics["speedup"] == pytest.approx(4.0)
    assert outcome.metrics["speedup.low"] == pytest.approx(4.0)
    assert outcome.facts.timing.reference == ("sentinel" if reference == "sentinel" else "baseline")
    assert outcome.metrics["reference_latency"] == (2.0 if reference == "sentinel" else 12.0)


def test_the_real_sentinel_agrees_with_the_baseline_roughly(problem: Problem) -> None:
    timing = replace(QUICK, warmups=1, min_rounds=7, max_rounds=7)
    speedups = []
    for reference in ("baseline", "sentinel"):
        evaluate = Evaluator(replace(problem, timing=replace(timing, reference=reference)))
        speedups.append(measured(evaluate(candidate(0.5, batch=4))).metrics["speedup"])
    assert 0.5 < speedups[1] / speedups[0] < 2.0


def test_the_drift_is_the_latency_of_the_reference_over_its_first(problem: Problem, clock: Clock) -> None:
    evaluate = scripted(problem, clock, 4.0, 5.0)
    mine = Scripted(clock, (1.0,))
    first, second = (measured(evaluate(candidate(ratio, workload=mine))).metrics for ratio in (0.5, 0.25))
    assert (first["drift"], first["reference_latency"]) == (1.0, 4.0)
    assert second["drift"] in (1.0, 1.25)
    assert second["drift"] == second["reference_latency"] / 4.0


def test_the_dense_model_is_measured_once_per_workload(evaluate: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[Any, bool]] = []
    run = Bench.run

    def watched(self: Bench, workload: Any, model: TorchRunner, *rest: Any) -> Any:
        ran.append((workload.batch_size, model.model is evaluate.compressed(candidate())))
        return run(self, workload, model, *rest)

    monkeypatch.setattr(Bench, "run", watched)
    for ratio, batch in ((0.5, 1), (0.25, 1), (0.5, 2), (0.25, 2), (0.0, 2), (0.0, 1)):
        evaluate(candidate(ratio, batch=batch))
    of_dense = [batch for batch, dense in ran if dense]
    assert of_dense == [1, 2, 2, 1]  # when first needed, and when asked for
    assert len(ran) == 4 + 4


def test_the_gain_is_over_the_dense_model_at_the_same_batch_size(problem: Problem, clock: Clock) -> None:
    evaluate = scripted(problem, clock, 12.0)
    larger = Scripted(clock, (6.0, 2.0), batch_size=4)  # the candidate is timed first, then the dense model
    metrics = measured(evaluate(candidate(0.5, 8, workload=larger))).metrics
    assert metrics["speedup"] == 2.0
    assert metrics["compression_speedup"] == pytest.approx(2.0 / 6.0)
    assert metrics["batching_speedup"] == 6.0  # 12 s for one request, then 8 s for four
    assert metrics["latency_ratio"] == pytest.approx(metrics["latency.p50"] / 12.0)
    assert metrics["weight_ratio"] < 1


def test_candidates_are_confirmed_in_shared_rounds(problem: Problem, clock: Clock) -> None:
    evaluate = scripted(problem, clock, 12.0, min_rounds=2, max_rounds=2)
    members = [candidate(ratio, workload=Scripted(clock, (seconds,))) for ratio, seconds in ((0.5, 3.0), (0.25, 6.0))]
    found = evaluate.confirm(members)
    assert [one.metrics["speedup"] for one in found] == [4.0, 2.0]
    assert [one.samples["speedup"] for one in found] == [(4.0, 4.0), (2.0, 2.0)]
    assert all(one.facts.timing.stopped == "rounds" for one in found)
    assert all(one.metrics.keys() <= KNOWN for one in found)
    assert not any("accuracy" in one.metrics for one in found)
    models = [evaluate.compressed(one) for one in (candidate(), *members)]
    assert [model for _, model in clock.log] == [*models, *reversed(models)]


def test_members_that_do_not_fit_together_are_confirmed_in_groups(
    problem: Problem, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = scripted(problem, clock, 12.0)
    members = [candidate(ratio, workload=Scripted(clock, (3.0,))) for ratio in (0.5, 0.25, 0.125)]
    shapes = [shape for shape in map(evaluate.pool.shapes, members) if shape is not None]
    assert len(shapes) == 3
    two = sum(one.weights for one in shapes[:2]) + max(one.peak - one.weights for one in shapes[:2])
    monkeypatch.setattr(Cpu, "free_memory", lambda _self: two)
    assert evaluate.timer._together(members) == (2, "baseline")
    groups: list[int] = []
    confirm = Bench.confirm

    def watched(self: Bench, runs: Any, reference: Any) -> Any:
        groups.append(len(runs))
        return confirm(self, runs, reference)

    monkeypatch.setattr(Bench, "confirm", watched)
    assert [one.metrics["speedup"] for one in evaluate.confirm(members)] == [4.0] * 3
    assert groups == [2, 1]
    monkeypatch.setattr(Cpu, "free_memory", lambda _self: 1000)
    with pytest.raises(MemoryError, match="by prediction"):
        Evaluator(evaluate.problem).confirm(members)


def test_what_was_timed_beside_a_sentinel_is_confirmed_beside_it(
    problem: Problem, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Scripted(clock, (2.0,))
    monkeypatch.setattr(ReferenceWorkload, "run", lambda _self, model, watch: stand_in.run(model, watch))
    evaluate = scripted(problem, clock, 12.0, reference="sentinel", min_rounds=6, max_rounds=6)
    (found,) = evaluate.confirm([candidate(0.5, workload=Scripted(clock, (3.0,)))])
    assert found.metrics["speedup"] == pytest.approx(4.0)
    assert found.facts.timing.reference == "sentinel"


def test_the_baseline_says_what_it_has_to_say_before_it_makes_room(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that holds the candidate, or the baseline, but not both; here both lie in the same memory."""
    evaluate = Evaluator(problem)
    events: list[str] = []
    monkeypatch.setattr(CandidateTimer, "reference", lambda *_: Reference.SENTINEL)
    monkeypatch.setattr(CandidateTimer, "_parkable", lambda _self: 1)
    link, score, to = Bench.baseline_over_reference, Evaluator.score, type(evaluate.compressed(candidate()).module).to

    def watch(name: str, call: Any) -> Any:
        def watched(*arguments: Any) -> Any:
            events.append(name)
            return call(*arguments)

        return watched

    monkeypatch.setattr(Bench, "baseline_over_reference", watch("link", link))
    monkeypatch.setattr(Evaluator, "score", watch("score", score))
    monkeypatch.setattr(type(evaluate.pool.baseline.module), "to", watch("park", to))
    outcome = measured(evaluate(candidate(0.5)))
    assert outcome.facts.timing.reference == "sentinel"
    assert events[:2] == ["link", "score"]  # of the baseline, where it runs
    assert events.index("park") == 2
    assert "compression_speedup" not in outcome.metrics  # the dense model cannot be timed while it is away


def test_what_runs_the_baselines_tensors_does_not_send_them_away(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Evaluator(problem)
    monkeypatch.setattr(CandidateTimer, "reference", lambda *_: Reference.SENTINEL)
    monkeypatch.setattr(CandidateTimer, "_parkable", lambda _self: 1)
    moved: list[object] = []
    monkeypatch.setattr(type(evaluate.pool.baseline.module), "to", lambda *arguments: moved.append(arguments))
    dense = replace(problem.baseline, workload=replace(problem.baseline.workload, batch_size=3))
    assert evaluate.pool.is_built(dense)
    assert measured(evaluate(dense)).facts.timing.reference == "sentinel"
    assert measured(evaluate(replace(dense, runtime=Torch(attention="eager")))).facts.timing.reference == "sentinel"
    assert not moved


def test_what_a_runtime_of_torchs_gains_is_not_taken_for_compressions(problem: Problem) -> None:
    found = measured(Evaluator(problem)(replace(candidate(0.5), runtime=Torch(attention="eager")))).metrics
    for end in ("", ".low", ".high", ".error"):
        assert found[f"compression_speedup{end}"] == found[f"own_speedup{end}"]
        assert found[f"dense_speedup{end}"] == found[f"runtime_speedup{end}"]
    assert found["batching_speedup"] == 1.0  # torch's dense model at the baseline's batch size
    assert found["own_speedup"] == pytest.approx(found["speedup"] / found["runtime_speedup"])


# ---- memory


def test_what_cannot_fit_is_refused_before_anything_is_built(
    evaluate: Evaluator, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = candidate(0.5, 8, workload=Generation(batch_size=4096, prompt_tokens=64, new_tokens=2))
    needed = evaluate.predict(huge)["predicted_peak"]
    built: list[object] = []
    monkeypatch.setattr(Structured, "prune_", lambda *_: built.append("pruned"))
    monkeypatch.setattr(Cpu, "free_memory", lambda _self: 5 * 2**20)
    failure = failed(evaluate(huge))
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert failure.message == f"out of memory by prediction: {needed / 2**20:,.0f} MiB needed, 5 MiB free"
    assert needed > 100 * 2**20
    assert failure.metrics == {"predicted_peak": needed}
    assert needed / (1 + failure.severity) == pytest.approx(5 * 2**20)
    assert built == toy.scored == []
    monkeypatch.setattr(Cpu, "free_memory", lambda _self: int(needed) + 1)
    assert evaluate.timer.reference(huge, evaluate.pool.shapes(huge)) == "baseline"


def test_weights_that_are_there_already_are_not_needed_twice(
    evaluate: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = candidate(0.5, 8)
    shapes = evaluate.pool.shapes(one)
    assert shapes is not None
    monkeypatch.setattr(Cpu, "free_memory", lambda _self: shapes.peak - shapes.weights)
    assert failed(evaluate(one)).reason is Reason.OUT_OF_MEMORY
    evaluate.compressed(one)
    assert measured(evaluate(one))


# ---- accuracy


def test_the_difference_to_the_baseline_is_exactly_zero_for_the_baseline(evaluate: Evaluator, toy: Toy) -> None:
    toy.act = lambda _model: 0.5 - len(toy.scored) / 8
    same = measured(evaluate(candidate())).metrics
    assert [same[f"accuracy_difference{end}"] for end in ("", ".low", ".high")] == [0.0, 0.0, 0.0]
    other = measured(evaluate(candidate(0.5))).metrics
    assert other["accuracy_difference"] == -0.125
    assert other["accuracy_difference.low"] <= -0.125 <= other["accuracy_difference.high"]
    assert len(toy.scored) == 2


def test_the_baseline_is_scored_though_nobody_asked_for_it(evaluate: Evaluator, toy: Toy) -> None:
    measured(evaluate(candidate(0.5)))
    assert len(toy.scored) == 2


def explode(error: BaseException) -> Callable[[TorchRunner], float]:
    def act(_model: TorchRunner) -> float:
        raise error

    return act


MEMORY = [
    MemoryError(),
    MemoryError("no room"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nlong text"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes\nC++ frames"),
]


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_running_out_of_memory_is_a_failure_in_one_line(evaluate: Evaluator, toy: Toy, error: Exception) -> None:
    toy.act = explode(error)
    failure = failed(evaluate(candidate(0.5)))
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert failure.message
    assert "\n" not in failure.message
    toy.act = lambda _model: 0.25  # a failure is not remembered as a score, nor is the model kept
    assert measured(evaluate(candidate(0.5))).metrics["accuracy"] == 0.25


def test_real_allocations_that_fail_are_told_as_out_of_memory(evaluate: Evaluator, toy: Toy) -> None:
    toy.act = lambda _model: float(torch.empty(1 << 50).sum())
    assert failed(evaluate(candidate())).reason is Reason.OUT_OF_MEMORY
    toy.act = lambda _model: float(len(bytearray(1 << 60)))
    assert failed(evaluate(candidate())).reason is Reason.OUT_OF_MEMORY


OTHERS = [RuntimeError("shapes differ"), ValueError("x"), KeyError("k"), ModelError("data")]


@pytest.mark.parametrize("error", OTHERS)
def test_other_exceptions_are_not_swallowed(
    evaluate: Evaluator, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate.pool, "runner", explode(error))
    with pytest.raises(type(error)) as caught:
        evaluate(candidate())
    assert caught.value is error
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS[:3])
def test_what_the_code_of_a_users_task_raises_is_told_in_a_line(
    evaluate: Evaluator, toy: Toy, error: Exception
) -> None:
    toy.act = explode(error)
    failure = failed(evaluate(candidate()))
    assert failure.reason is Reason.ERROR
    assert f"Toy.evaluate raised {type(error).__name__}" in failure.message
    assert "test_evaluator.py, line" in failure.message
    assert "\n" not in failure.message


def test_what_cannot_be_built_is_unsupported_and_says_why(evaluate: Evaluator, toy: Toy) -> None:
    failure = failed(evaluate(candidate(0.9)))
    assert failure.reason is Reason.UNSUPPORTED
    assert "pruning.ratio 0.9 cannot be met in the model" in failure.message
    assert measured(evaluate(candidate(0.5)))
    toy.act = explode(Unsupported("no kernel"))
    assert failed(evaluate(candidate(0.25))) == Failure(Reason.UNSUPPORTED, "no kernel")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_accuracy_that_is_no_number_is_a_failure_that_names_it(evaluate: Evaluator, toy: Toy, value: float) -> None:
    toy.act = lambda _model: value
    failure = failed(evaluate(candidate(0.5)))
    assert failure.reason is Reason.NOT_FINITE
    assert failure.message == "accuracy not finite"


def test_task_and_workload_must_fit_the_head_of_the_model(problem: Problem, tiny_folder: Folder) -> None:
    encoder = Checkpoint(path=str(tiny_folder("bert")), head="encoder")
    with pytest.raises(ModelError, match=r"^task drives causal_lm models, model\.head is encoder$"):
        Evaluator(replace(problem, model=encoder))
    with pytest.raises(ModelError, match=r"^workload drives causal_lm models, model\.head is encoder$"):
        Evaluator(replace(problem, model=encoder, task=Toy("encoder")))


def test_an_evaluator_is_made_without_loading_anything(problem: Problem, toy: Toy) -> None:
    evaluate = Evaluator(replace(problem, model=Checkpoint(path="/no/where", head="causal_lm")))
    assert toy.calibrated == 0
    with pytest.raises(ModelError, match="/no/where"):
        evaluate.prepare()


def test_preparing_says_what_runs_where(evaluate: Evaluator, problem: Problem) -> None:
    facts = evaluate.prepare()
    assert facts["device"] == "cpu"
    assert facts["threads"] == "1"
    assert facts["torch"] == torch.__version__
    assert facts["model_sha256"] == problem.model.weights_hash()
    assert all(isinstance(value, str) and value for value in facts.values())


def test_the_source_is_never_changed(evaluate: Evaluator, problem: Problem) -> None:
    for ratio, bits in ((0.5, 4), (0.25, 8), (0.0, 16)):
        evaluate(candidate(ratio, bits))
    fresh, held = problem.model.load().module.state_dict(), evaluate.pool.source.module.state_dict()
    assert all(torch.equal(held[name], fresh[name]) for name in fresh)


def test_statistics_are_those_of_the_baseline_gathered_once(
    evaluate: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[LoadedModel] = []
    collect = calibration.collect_moments

    def watched(model: LoadedModel, domains: Any) -> Any:
        walked.append(model)
        return collect(model, domains)

    monkeypatch.setattr(calibration, "collect_moments", watched)
    for ratio in (0.5, 0.25):
        evaluate(candidate(ratio))
    assert walked == [evaluate.compressed(candidate())]


def test_recovery_makes_a_prediction_void_whatever_was_pruned(evaluate: Evaluator) -> None:
    chosen = replace(candidate(), pruning=Structured(ffn_ratio=0.3), recovery=Distillation(steps=1))
    assert evaluate.predict(chosen).keys() == {"predicted_peak"}


def test_a_singular_system_is_a_failure_that_says_what_helps(evaluate: Evaluator) -> None:
    outcome = failed(evaluate(replace(candidate(), quantization=Gptq(bits=4, damping=1e-30))))
    assert outcome.reason == Reason.UNSUPPORTED
    assert "damping" in outcome.message


def test_the_dense_model_is_timed_again_while_the_machine_is_busy(
    evaluate: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every gain at a batch size hangs on it."""
    run = Bench.run
    dense: list[int] = []

    def busy(self: Bench, workload: Any, model: TorchRunner, *rest: Any) -> Any:
        found = run(self, workload, model, *rest)
        if model.model is evaluate.pool.baseline:
            dense.append(workload.batch_size)
            return replace(found, metrics={**found.metrics, "contended": 1.0})
        return found

    monkeypatch.setattr(Bench, "run", busy)
    for ratio in (0.5, 0.25, 0.5, 0.25, 0.5):
        outcome = measured(evaluate(candidate(ratio, batch=2)))
        assert "the dense model at this batch size was timed on a busy machine" in map(str, outcome.notes)
    assert dense == [2] * DENSE_TRIES
