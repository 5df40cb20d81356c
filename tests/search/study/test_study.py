from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from sqlalchemy import update

from objectives.types import Failure, Measurement, Reason
from search.config.limits import Limits
from search.config.study_config import build_config
from search.errors import BaselineFailed, ConfigError, Interrupted, LeaseLost, StudyConflict
from search.executors.signals import sigterm_interrupts
from search.records.stop_reason import StopReason
from search.study import opening, store
from search.study.lease import LEASES, Lease
from search.study.progress import _last
from search.study.study import run_study
from tests.search.conftest import RATIOS, FakeExecutor, Quiet, closed_form, composed, config_at, done, slow_to_score

SAMPLERS = sorted(file.stem for file in (Path(__file__).parents[3] / "conf" / "sampler").glob("*.yaml"))
STOPS_BY_ITSELF = "frontier"
USUAL = ("frontier", "tpe", "random", "exhaustive")
"""Tried by default; the others, which come from Optuna too, under ``slow``."""


def tried(*left_out: str) -> list[object]:
    names = [name for name in SAMPLERS if name not in left_out]
    return [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in names]


FEW = ("space.pruning.ratio=[0.0,0.5]", "space.quantization.bits=[16,4]", "space.workload.batch_size=[1,4]")


def run(config):
    return run_study(config, Quiet())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that measured every cell; tests only read it."""
    return run(config_at(tmp_path_factory.mktemp("whole") / "mlruns", "sampler=exhaustive", "n_trials=100"))


def stored(result) -> optuna.Study:
    return optuna.load_study(study_name=result.config.name, storage=result.config.storage)


@pytest.mark.parametrize("sampler", tried())
def test_every_sampler_runs_a_study_to_its_budget(make_config, sampler) -> None:
    budget = 6 if sampler == STOPS_BY_ITSELF else 12
    result = run(make_config(f"sampler={sampler}", f"n_trials={budget}"))
    assert len(result.records) == budget
    assert result.stop_reason is StopReason.BUDGET
    assert result.records[0].is_baseline
    assert result.records[0].params == {
        "pruning.ratio": 0.0,
        "quantization.bits": 16,
        "workload.batch_size": 1,
    }
    accuracies = {record.number: record.metrics["accuracy"] for record in result.records}
    assert result.front.front
    assert all(accuracies[number] >= result.front.floor for number in result.front.front)


def test_the_frontier_sampler_finds_the_exhaustive_front_in_fewer_trials_and_stops_by_itself(
    make_config, whole
) -> None:
    found = run(make_config("sampler=frontier", "n_trials=100", "study_name=found"))
    fronts = [
        {tuple(result.records[number].params.items()) for number in result.front.front} for result in (whole, found)
    ]
    assert fronts[0] == fronts[1]
    assert found.stop_reason is StopReason.COMPLETE
    assert len(found.records) < len(whole.records) == 18


@pytest.mark.parametrize(
    ("relative", "epsilon", "said"), [("true", 1.2, True), ("true", 0.9, False), ("false", 0.41, True)]
)
def test_a_floor_above_the_baseline_is_said_when_that_is_measured(make_config, caplog, relative, epsilon, said) -> None:
    run(make_config("n_trials=1", f"accuracy_floor.epsilon={epsilon}", f"accuracy_floor.relative={relative}"))
    assert ("lies above the baseline's accuracy of 0.4" in caplog.text) is said


def test_the_exhaustive_sampler_finds_the_whole_front_and_stops_by_itself(whole) -> None:
    assert whole.stop_reason is StopReason.COMPLETE
    assert len(whole.records) == len(whole.config.space) == 18
    assert len({tuple(record.params.items()) for record in whole.records}) == 18


def test_a_repeated_cell_is_answered_from_its_record(make_config) -> None:
    config = make_config("n_trials=10", "space.pruning=null", "space.quantization.bits=[16,8]")
    config = replace(config, limits=Limits(4), sampler=lambda seed: optuna.samplers.RandomSampler(seed=3))
    result = run(config)
    repeats = [record for record in result.records if record.cached_from is not None]
    assert repeats
    assert len(config.executor.asked) == len(result.records) - len(repeats)
    for record in repeats:
        origin = result.records[record.cached_from]
        assert origin.cached_from is None
        assert (origin.metrics, origin.params) == (record.metrics, record.params)


@pytest.mark.parametrize("sampler", tried("gp", STOPS_BY_ITSELF))  # each question costs gp 0.5 s
def test_no_sampler_spends_the_budget_on_a_known_cell(make_config, sampler) -> None:
    result = run(make_config(f"sampler={sampler}", "n_trials=8", *FEW))
    assert len({tuple(record.params.items()) for record in result.records}) == 8 == len(result.config.space)


@pytest.mark.parametrize("sampler", tried("gp"))
def test_no_sampler_asks_more_of_a_model_that_ran_out_of_memory(make_config, sampler) -> None:
    def answer(candidate):
        if candidate.workload.batch_size >= 4:
            return Failure(Reason.OUT_OF_MEMORY, "out of memory")
        return closed_form(candidate)

    more = "space.workload.batch_size=[1,4,8,16]"
    result = run(make_config(f"sampler={sampler}", "n_trials=99", *FEW[:2], more, answer=answer))
    failed: dict[tuple, int] = {}
    for record in result.records:
        model, batch = (
            (record.params["pruning.ratio"], record.params["quantization.bits"]),
            record.params["workload.batch_size"],
        )
        assert batch < failed.get(model, 99), record
        if record.state == "failed":
            failed[model] = min(batch, failed.get(model, 99))
    assert failed
    assert result.stop_reason is StopReason.COMPLETE


def test_n_trials_is_the_total_and_the_same_name_resumes(make_config) -> None:
    first = run(make_config("n_trials=5", "sampler=exhaustive"))
    config = make_config("n_trials=9", "sampler=exhaustive")
    second = run(config)
    assert first.config.name == config.name
    assert [record.number for record in second.records] == list(range(9))
    assert len(config.executor.asked) == 4
    third = make_config("n_trials=9", "sampler=exhaustive")
    assert len(run(third).records) == 9
    assert third.executor.asked == []


@pytest.mark.parametrize("kind", [RandomSampler, TPESampler, NSGAIISampler])
def test_a_resumed_study_does_not_draw_its_first_trials_again(make_config, kind) -> None:
    """Optuna's own samplers: ours leave out what is known, whatever they draw."""
    space = "space.workload.batch_size=[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]"

    def records(budget):
        return run(replace(make_config(f"n_trials={budget}", space), sampler=lambda seed: kind(seed=seed))).records

    first, second = records(5), records(9)
    drawn = [tuple(record.params.items()) for record in second]
    assert drawn[1:5] != drawn[5:9]
    assert [record.params for record in second[:5]] == [record.params for record in first]


def test_a_failed_trial_is_a_row_with_its_reason_and_never_on_the_front(make_config) -> None:
    def answer(candidate):
        if candidate.workload.batch_size == 4:
            return Failure(Reason.OUT_OF_MEMORY, "no room")
        return (
            Failure(Reason.CRASHED, "killed by SIGKILL") if candidate.pruning.ratio == 0.5 else closed_form(candidate)
        )

    result = run(make_config("sampler=exhaustive", "n_trials=18", answer=answer))
    failed = [record for record in result.records if record.state == "failed"]
    assert {record.reason for record in failed} == {"out_of_memory", "crashed"}
    assert not {record.number for record in failed} & (set(result.front.front) | result.front.feasible)


def test_failures_that_would_repeat_are_told_as_infeasible_and_crashes_as_failed(make_config) -> None:
    def answer(candidate):
        if candidate.quantization.bits == 4:
            return Failure(Reason.OUT_OF_MEMORY, "no room")
        return Failure(Reason.CRASHED, "died") if candidate.quantization.bits == 8 else closed_form(candidate)

    study = stored(run(make_config("sampler=exhaustive", "n_trials=18", answer=answer)))
    crashed = set()
    for trial in study.trials:
        record = store.saved_record(trial)
        if record.reason == "out_of_memory":
            assert trial.state == optuna.trial.TrialState.PRUNED
            assert trial.constraints == {"out_of_memory": 1.0}
        elif record.reason == "crashed" and tuple(record.params.items()) not in crashed:
            assert trial.state == optuna.trial.TrialState.FAIL
            crashed.add(tuple(record.params.items()))
        elif record.reason == "crashed":  # again
            assert trial.state == optuna.trial.TrialState.PRUNED
            assert trial.constraints == {"crashed": 1.0}
        else:
            assert trial.state == optuna.trial.TrialState.COMPLETE
            assert (trial.constraints["accuracy"] <= 0) == (record.metrics["accuracy"] >= 0.9 * 0.4)


@pytest.mark.parametrize(
    ("sampler", "reason"),
    [
        *(("frontier", reason) for reason in Reason if reason is not Reason.INTERRUPTED),
        ("random", Reason.CRASHED),  # tried again once
        ("tpe", Reason.OUT_OF_MEMORY),  # never tried again
        ("exhaustive", Reason.CRASHED),
    ],
)
def test_no_failure_is_met_in_the_same_cell_for_ever(make_config, sampler, reason) -> None:
    """A cell that nothing is known of is worth most to our own sampler, and is nearest to the best for others."""

    def answer(candidate):
        if candidate.quantization.bits == 4 and candidate.workload.batch_size == 4:
            return Failure(reason, "again")
        return closed_form(candidate)

    result = run(make_config(f"sampler={sampler}", "n_trials=40", *FEW, answer=answer))
    assert result.stop_reason is StopReason.COMPLETE
    failed = [tuple(record.params.values()) for record in result.records if record.reason == reason]
    assert failed
    assert max(failed.count(cell) for cell in failed) <= 2


def test_every_complete_trial_of_the_store_carries_its_constraint(whole) -> None:
    complete = [trial for trial in stored(whole).trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 18
    assert all("accuracy" in trial.constraints for trial in complete)


def test_a_baseline_that_crashes_once_is_tried_again(make_config) -> None:
    outcomes = [Failure(Reason.CRASHED, "killed")]
    config = make_config("n_trials=4", answer=lambda c: outcomes.pop() if outcomes else closed_form(c))
    result = run(config)
    assert [record.state for record in result.records][:2] == ["failed", "complete"]
    assert result.records[1].is_baseline


def test_a_baseline_that_cannot_be_measured_ends_the_study(make_config) -> None:
    config = make_config(answer=lambda _: Failure(Reason.OUT_OF_MEMORY, "no room"))
    with pytest.raises(BaselineFailed, match="no room"):
        run(config)
    assert len(config.executor.asked) == 1


def test_an_objective_that_the_workload_does_not_measure_is_refused_after_the_baseline(make_config) -> None:
    with pytest.raises(ConfigError, match="objectives: ttft is not measured"):
        run(make_config("objectives=[ttft,peak_memory]"))


def test_nothing_feasible_names_the_nearest_miss(make_config) -> None:
    result = run(make_config("accuracy_floor.epsilon=1.5", "n_trials=6"))
    assert result.front.front == ()
    assert result.records[result.front.nearest_miss].metrics["accuracy"] == pytest.approx(0.4)
    assert result.front.gap == pytest.approx(0.2)


def test_an_explicit_name_with_another_definition_is_refused_with_the_difference(make_config) -> None:
    run(make_config("study_name=mine", "n_trials=2"))
    with pytest.raises(StudyConflict, match=r"accuracy_floor\.epsilon: stored 0\.9, now 0\.95"):
        run(make_config("study_name=mine", "accuracy_floor.epsilon=0.95", "n_trials=2"))


def test_the_default_name_changes_with_the_definition_only(make_config) -> None:
    name = make_config().name
    assert make_config("n_trials=3", "tradeoff=chebyshev").name == name
    assert len({name, make_config("accuracy_floor.epsilon=0.95").name, make_config("seed=1").name}) == 3


def test_a_study_that_runs_elsewhere_is_refused(make_config) -> None:
    config = make_config("n_trials=2")
    storage = opening.open_storage(config.storage, config.home)
    with Lease(storage, config.name).held(), pytest.raises(StudyConflict, match="is being run by process"):
        run(config)


def test_a_study_that_another_driver_took_over_stops_and_writes_nothing_more(make_config) -> None:
    """As after a suspended machine: the other began while a trial was measured here."""
    measured = []

    def answer(candidate):
        measured.append(candidate)
        if len(measured) == 3:
            storage = opening.open_storage(config.storage, config.home)
            with storage.engine.begin() as connection:
                connection.execute(update(LEASES).values(token=LEASES.c.token + 1))
        return closed_form(candidate)

    config = make_config("n_trials=6", "sampler=exhaustive", answer=answer)
    with pytest.raises(LeaseLost, match="was taken over by process"):
        run(config)
    study = optuna.load_study(study_name=config.name, storage=config.storage)
    assert len(store.records_of(study)) == 2
    assert len(store.orphans(study)) == 1


def test_a_study_on_postgresql_resumes_and_is_the_one_on_sqlite(make_config, postgresql) -> None:
    words = ("n_trials=8", "sampler=exhaustive", "study_name=both")
    there = f"storage={postgresql.url.replace('+psycopg', '')}"
    for store_ in ((), (there,)):
        run(make_config(*words, *store_, "n_trials=5"))
    here, other = run(make_config(*words)), run(make_config(*words, there))
    assert [(each.number, each.params, each.metrics) for each in other.records] == [
        (each.number, each.params, each.metrics) for each in here.records
    ]
    assert other.front == here.front


def test_an_interrupted_trial_is_settled_reported_and_not_counted(make_config) -> None:
    asked = []

    def answer(candidate):
        asked.append(candidate)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return closed_form(candidate)

    result = run(make_config("n_trials=6", "sampler=exhaustive", answer=answer))
    assert isinstance(result.interrupted, Interrupted)
    assert [record.reason for record in result.records] == ["", "", "interrupted"]
    resumed = run(make_config("n_trials=6", "sampler=exhaustive"))
    assert sum(record.state == "complete" for record in resumed.records) == 6
    assert len(resumed.records) == 7


def test_sigterm_passes_through_code_that_wraps_every_exception(make_config) -> None:
    """As SQLAlchemy does while a statement runs."""

    def answer(candidate):
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception as error:
            raise RuntimeError("wrapped") from error
        return closed_form(candidate)

    with sigterm_interrupts(), pytest.raises(Interrupted) as caught:
        run(make_config("n_trials=2", answer=answer))
    assert caught.value.exit_code == 143


def test_a_trial_left_running_by_a_killed_driver_is_settled_at_the_next_start(make_config) -> None:
    config = make_config("n_trials=3", "sampler=exhaustive")
    run(config)
    study = optuna.load_study(study_name=config.name, storage=config.storage)
    study.ask()
    run(make_config("n_trials=5", "sampler=exhaustive"))
    states = [trial.state.name for trial in optuna.load_study(study_name=config.name, storage=config.storage).trials]
    assert states == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"] * 2


@pytest.mark.parametrize(
    ("fixed", "baseline"),
    [
        (("space.pruning=null", "pruning.ratio=0.5"), {"pruning.ratio": 0.0}),
        (("space.quantization=null", "quantization.bits=4"), {"quantization.bits": 16}),
    ],
)
def test_the_baseline_is_no_cell_of_a_space_that_fixes_another_recipe(make_config, fixed, baseline) -> None:
    config = make_config(*fixed, "sampler=exhaustive", "n_trials=50", "accuracy_floor.epsilon=0.1")
    result = run(config)
    first, *others = result.records
    assert first.params == {**config.space.baseline(), **baseline}
    assert len(others) == len(config.space)
    for record in result.records:
        candidate = config.space.candidate(record.params)
        assert record.metrics["accuracy"] == closed_form(candidate).metrics["accuracy"]


def test_other_weights_under_the_same_path_are_refused(make_config) -> None:
    config = make_config("n_trials=2")
    run(config)
    study = optuna.load_study(study_name=config.name, storage=config.storage)
    study.set_user_attr(store.MACHINE, {"device": "fake", "model_sha256": "x"})
    with pytest.raises(StudyConflict, match="weights differ"):
        opening.settle_machine(study, {"device": "fake", "model_sha256": "y"})


def test_a_study_that_could_not_start_is_forgotten(make_config) -> None:
    class Broken(FakeExecutor):
        def prepare(self):
            future = done({})
            future.result = lambda: (_ for _ in ()).throw(TimeoutError("no worker"))
            return future

    config = replace(make_config(), executor=Broken())
    with pytest.raises(BaselineFailed, match="loading the model: TimeoutError: no worker"):
        run(config)
    assert optuna.get_all_study_summaries(config.storage) == []


def test_throughput_follows_the_paired_ratio_and_not_the_drift(make_config) -> None:
    drift = iter(range(1, 100))

    def answer(candidate):
        metrics = dict(closed_form(candidate).metrics)
        metrics["throughput"] *= next(drift)
        return Measurement(metrics)

    result = run(make_config("sampler=random", "n_trials=5", answer=answer))
    base = result.records[0].metrics["throughput"]
    for record in result.records:
        assert record.metrics["throughput"] == pytest.approx(base * record.metrics["speedup"])


def test_raw_samples_are_kept_with_the_trial(whole) -> None:
    assert len(stored(whole).trials[0].user_attrs[store.SAMPLES]["latency"]) == 2


def test_ordinals_are_stored_exactly(whole) -> None:
    assert {record.params["pruning.ratio"] for record in whole.records} == {0.0, 0.25, 0.5}


def test_a_missing_metric_is_no_objective_value(make_config) -> None:
    def answer(candidate):
        metrics = dict(closed_form(candidate).metrics)
        if candidate.quantization.bits == 4:
            del metrics["latency.p95"]
        return Measurement(metrics)

    result = run(
        make_config("n_trials=8", "sampler=exhaustive", "objectives=[latency.p95,peak_memory]", *FEW, answer=answer)
    )
    members = {result.records[number].params["quantization.bits"] for number in result.front.front}
    assert members
    assert 4 not in members


def test_the_executor_is_left_also_when_the_study_fails(make_config) -> None:
    config = make_config(answer=lambda _: Failure(Reason.OUT_OF_MEMORY, "no room"))
    assert isinstance(config.executor, FakeExecutor)
    with pytest.raises(BaselineFailed):
        run(config)
    assert config.executor.left == 1


def test_a_simulated_trial_has_an_accuracy_and_no_place_on_the_front(make_config) -> None:
    def simulated(candidate) -> Measurement:
        outcome = closed_form(candidate)
        if candidate.quantization.bits == 16:
            return outcome
        kept = {name: value for name, value in outcome.metrics.items() if name.startswith("accuracy")}
        return Measurement(kept, {}, ("simulated",))

    result = run(make_config("sampler=exhaustive", "n_trials=100", answer=simulated))
    assert {record.state for record in result.records} == {"complete"}
    without = {r.number for r in result.records if "peak_memory" not in r.metrics}
    assert len(without) > len(result.records) / 2
    assert result.front.front
    assert not without & set(result.front.front)
    told = [_last(record) for record in result.records]
    assert sum("simulated" in line for line in told) == len(without)


def test_a_cell_behind_another_is_told_without_an_accuracy_and_stays_off_the_front(make_config) -> None:
    config = make_config("sampler=frontier", "n_trials=100", RATIOS, answer=slow_to_score)
    result = run(config)
    unscored = [record for record in result.records if record.state == "complete" and "accuracy" not in record.metrics]
    assert unscored
    members = [record for record in result.records if record.number in result.front.front]
    study = optuna.load_study(study_name=config.name, storage=config.storage)
    for record in unscored:
        assert record.number not in result.front.feasible
        assert any(
            member.metrics["throughput"] >= record.metrics["throughput"]
            and member.metrics["peak_memory"] <= record.metrics["peak_memory"]
            for member in members
        )
        trial = study.trials[record.number]
        assert (trial.state.name, trial.constraints) == ("PRUNED", {"unscored": 1.0})


def test_how_far_a_limit_was_exceeded_is_told(make_config) -> None:
    def answer(candidate):
        if candidate.workload.batch_size == 1:
            return closed_form(candidate)
        return Failure(Reason.OUT_OF_MEMORY, "no room", severity=candidate.quantization.bits / 64)

    study = stored(run(make_config("sampler=exhaustive", "n_trials=8", *FEW, answer=answer)))
    told = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert len({trial.constraints["out_of_memory"] for trial in told}) > 1
    for trial in told:
        record = store.saved_record(trial)
        assert trial.constraints == {"out_of_memory": record.params["quantization.bits"] / 64}
        assert record.severity == record.params["quantization.bits"] / 64


def test_cells_named_first_are_tried_first(make_config) -> None:
    cells = [{"pruning.ratio": 0.5, "workload.batch_size": 4}, {"quantization.bits": 4}]
    resolved = composed("experiment=ci_tiny", "tracker=none", "device=cpu", "n_trials=3")
    for sampler in ("frontier", "random"):
        config = replace(
            make_config(f"sampler={sampler}", "n_trials=3"),
            first=build_config({**resolved, "first": cells}).first,
        )
        tried = [dict(record.params) for record in run(config).records]
        assert tried[1:3] == [
            {"pruning.ratio": 0.5, "quantization.bits": 16, "workload.batch_size": 4},
            {"pruning.ratio": 0.0, "quantization.bits": 4, "workload.batch_size": 1},
        ]


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ({"pruning.ratio": 0.1}, "first: expected a list of cells"),
        ([{"pruning.ratio": 0.3}], "first: {'pruning.ratio': 0.3} is no cell of the space; there are pruning.ratio: ["),
        ([{"pruning.rate": 0.5}], "first: {'pruning.rate': 0.5} is no cell of the space"),
    ],
)
def test_cells_that_are_none_are_refused(first, words) -> None:
    with pytest.raises(ConfigError) as refused:
        build_config({**composed("experiment=ci_tiny", "tracker=none", "device=cpu"), "first": first})
    assert str(refused.value).startswith(words)


def stored_losses(config):
    return store.losses_of(opening.open_study(config, config.sampler))


def test_losses_are_predicted_once_for_all_recipes_and_kept_with_the_study(make_config) -> None:
    def loss(candidate):
        return candidate.pruning.ratio + {16: 0.0, 8: 0.01, 4: 0.1}[candidate.quantization.bits]

    config = make_config("sampler=frontier", "n_trials=2")
    config.executor.loss = loss
    run(config)
    losses = stored_losses(config)
    assert len(losses) == 9
    assert sorted(losses)[:2] == [0.0, 0.01]
    config.executor.loss = None
    more = replace(config, limits=replace(config.limits, n_trials=3))
    run(more)
    assert stored_losses(more) == losses


def test_an_objective_without_a_logarithm_costs_every_cell_one_trial_and_no_more(make_config) -> None:
    """The baseline's pruning ratio is 0: nothing is learnt of such cells, but none is tried twice."""
    config = make_config("sampler=frontier", "n_trials=60", "objectives=[pruning_ratio,peak_memory]", *FEW)
    result = run(config)
    cells = [tuple(record.params.items()) for record in result.records]
    assert len(set(cells)) == len(cells) <= 8
    assert result.stop_reason is StopReason.COMPLETE


@pytest.mark.parametrize("floor", ["mlperf_99", "mlperf_999", "absolute"])
def test_the_error_of_verdicts_can_be_set(floor) -> None:
    given = ("accuracy_floor.epsilon=0.3",) if floor == "absolute" else ()
    resolved = composed(f"accuracy_floor={floor}", "accuracy_floor.error=0", *given)
    assert build_config(resolved).floor.error == 0


def test_settings_of_one_name_are_told_apart(make_config) -> None:
    """Weights have bits, and so have keys and values."""
    config = make_config("+space.kv.bits=[16,8]", "n_trials=2")
    line = _last(run(config).records[0])
    assert "quantization.bits=16" in line
    assert "kv.bits=16" in line
    assert " batch_size=1" in line
