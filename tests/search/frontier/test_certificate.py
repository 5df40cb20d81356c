"""The certificate: every cell has a reason, what is claimed is true of the whole grid, and what is open is said."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest

from objectives.measuring.stored_facts import facts_of, texts_of
from objectives.types import Decision, Facts, Failure, Measurement, Note, NoteCode, Reason, Verdict
from search.front.deciding_again import decided_again
from search.front.feasibility import certainty_of, is_feasible, is_scored
from search.front.front import cut
from search.frontier.certificate import (  # fmt: skip
    ASSUMED,
    DOMINATED,
    FAILED,
    INFEASIBLE,
    MEASURED,
    MUST_FAIL,
    OPEN,
    UNDECIDED,
    CellStatus,
    Certificate,
    certify,
    summary_lines,
)
from search.records.stop_reason import StopReason
from search.space.grid import Grid
from search.study.study import run_study
from tests.search.conftest import RATIOS, Quiet, closed_form, config_at, slow_to_score


def raced_to(decision: str) -> Facts:
    return facts_of({"verdict": decision, "verdict_by": "betting"})


def certified(result, **settings):
    return certify(Grid(result.config.space.axes), result.records, result.front, **settings)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs a study; the same one once for all tests, which only read it."""

    @cache
    def run(*overrides, sampler="frontier", answer=closed_form):
        home = tmp_path_factory.mktemp("study") / "mlruns"
        return run_study(config_at(home, f"sampler={sampler}", "n_trials=100", *overrides, answer=answer), Quiet())

    return run


def test_every_cell_has_a_reason_that_holds_on_the_whole_grid(study) -> None:
    result = study()
    found = certified(result)
    assert found.complete
    assert found.open <= 0.05
    assert len(found.standings) == 18
    space = result.config.space
    truth = {tuple(cell.values()): closed_form(space.candidate(cell)).metrics for cell in space.cells()}
    by_number = {record.number: record for record in result.records}
    for standing in found.standings:
        own = truth[tuple(standing.cell.values())]
        cause = by_number.get(standing.trial)
        if standing.status == MEASURED:
            assert dict(cause.params) == dict(standing.cell)
        elif standing.status in (INFEASIBLE, ASSUMED):
            assert own["accuracy"] < result.front.floor
        else:
            assert standing.status == DOMINATED
            assert cause.metrics["throughput"] * 1.02 >= own["throughput"]
            assert cause.metrics["peak_memory"] <= own["peak_memory"] * 1.02
    assert set(found.members.values()) == {"certain"}


def test_a_study_that_ran_out_of_trials_says_what_is_open(study) -> None:
    result = study("n_trials=3")
    found = certified(result)
    assert result.stop_reason is StopReason.BUDGET
    assert not found.complete
    assert found.counts[OPEN] > 0
    lines = summary_lines(found)
    assert lines[0].startswith(f"Not complete: {found.counts[OPEN]} cells are open, and ")
    assert "18 cells" in lines[1]
    assert found.seconds > 0


def test_the_open_cells_are_the_likeliest_and_no_more_than_needed(study) -> None:
    found = certified(study("n_trials=4"))
    chances = {True: [], False: []}
    for standing in found.standings:
        chances[standing.status == OPEN].append(standing.chance)
    assert min(chances[True]) >= max(chances[False])
    assert sum(chances[False]) <= found.error < sum(chances[False]) + min(chances[True])


@pytest.mark.parametrize(
    ("sampler", "status", "most"),
    [("frontier", FAILED, 3), ("exhaustive", MUST_FAIL, 3)],  # of 9 and of 6; the first begins with the largest batch
)
def test_failures_close_cells_that_must_fail_as_well(study, sampler, status, most) -> None:
    def answer(candidate):
        if candidate.workload.batch_size >= 4 and candidate.quantization.bits == 16:
            return Failure(Reason.OUT_OF_MEMORY, "out of memory")
        return closed_form(candidate)

    few = ("space.pruning.ratio=[0.0,0.5]", "space.quantization.bits=[16,4]") if sampler == "exhaustive" else ()
    result = study(*few, "space.workload.batch_size=[1,4,16,64]", sampler=sampler, answer=answer)
    found = certified(result)
    assert found.complete
    failed = [record for record in result.records if record.state == "failed"]
    assert 1 <= len(failed) <= most
    assert status in {standing.status for standing in found.standings}
    for one, other in itertools.permutations(failed, 2):
        same = all(one.params[name] == other.params[name] for name in ("pruning.ratio", "quantization.bits"))
        more = other.params["workload.batch_size"] > one.params["workload.batch_size"]
        assert not (same and more and other.number > one.number)  # more work of a model that failed is not tried
    for standing in found.standings:
        if standing.status == MUST_FAIL:
            assert standing.why == "out_of_memory with less work"
            assert result.records[standing.trial].params["workload.batch_size"] < standing.cell["workload.batch_size"]
        elif standing.status == FAILED:
            assert result.records[standing.trial].reason == "out_of_memory"


def test_a_recut_front_is_as_sure_as_its_examples(study) -> None:
    """A race that was decided for one floor leaves another open, and then the estimate says how likely it is."""
    result = study()
    raced = [
        replace(
            record,
            facts=facts_of({"verdict": "reached", "verdict_by": "betting"}),
            metrics={**record.metrics, "floor": 0.3},
        )
        for record in result.records
        if "accuracy" in record.metrics
    ]
    worst = min(record.metrics["accuracy"] for record in raced)
    for floor, sure in ((0.3, {"certain"}), (worst - 0.05, {"likely"}), (worst - 1e-6, {"undecided"})):
        front = cut(raced, result.front.objectives, floor, result.config.tradeoff)
        assert set(certify(Grid(result.config.space.axes), raced, front).members.values()) == sure


def test_what_missed_the_floor_and_was_not_timed_is_open_where_the_floor_is_lower(study) -> None:
    """It had no reason to be timed; below its accuracy it has, and it would lead."""
    result = study(
        "space.workload.batch_size=[1]", "space.pruning.ratio=[0.0,0.1,0.2,0.3]", "accuracy_floor.epsilon=.96"
    )
    speeds = ("throughput", "speedup", "peak_memory", "latency.p50", "latency.p95")
    records = [
        replace(
            record, facts=facts_of({"skipped": "timing"}),
            metrics={name: value for name, value in record.metrics.items() if name not in speeds},
        )
        if record.metrics["accuracy"] < result.front.floor
        else record
        for record in result.records
    ]  # fmt: skip
    assert any(record.facts.timing_skipped for record in records)
    grid = Grid(result.config.space.axes)
    tried = {each.status for each in certify(grid, records, result.front).standings if each.trial is not None}
    assert not tried & {OPEN, UNDECIDED}
    lower = cut(records, result.front.objectives, 0.5 * result.front.floor, result.config.tradeoff)
    found = certify(grid, records, lower)
    assert not found.complete
    bare = {tuple(record.params.values()) for record in records if record.facts.timing_skipped}
    statuses = {standing.status for standing in found.standings if tuple(standing.cell.values()) in bare}
    assert statuses == {OPEN}


def test_members_that_were_timed_briefly_are_named(study) -> None:
    result = study()
    member = result.front.front[-1]
    records = [
        replace(record, facts=facts_of({**texts_of(record.facts), "stopped": "behind"}))
        if record.number == member
        else record
        for record in result.records
    ]
    found = certify(Grid(result.config.space.axes), records, result.front)
    assert found.timed_until_dominated == (member,)
    assert any(line.endswith(f"not feasible at this floor: trial {member}.") for line in summary_lines(found))


def test_a_grid_too_large_to_be_enumerated_has_no_certificate(study, monkeypatch) -> None:
    result = study("n_trials=2")
    monkeypatch.setattr("search.frontier.certificate.MOST_CELLS", 17)
    assert certified(result) is None


def test_untimed_trials_count_as_scored_and_not_as_measured(study) -> None:
    """As the evaluator does it: what misses the floor has an accuracy and no speed."""

    def answer(candidate):
        found = closed_form(candidate)
        if found.metrics["accuracy"] >= 0.99 * 0.4:
            return found
        kept = {name: found.metrics[name] for name in ("accuracy", "accuracy_stderr", "weight_bytes")}
        facts = facts_of({"verdict": "missed", "verdict_by": "betting"})
        notes = (Note(NoteCode.NOT_TIMED, "not timed: its accuracy misses the floor"),)
        return Measurement(kept, {"accuracy": (1.0, 0.0)}, notes, facts, ("a", "b"))

    result = study(answer=answer)
    found = certified(result)
    assert found.complete
    untimed = [record for record in result.records if "throughput" not in record.metrics]
    assert untimed
    statuses = {tuple(standing.cell.items()): standing.status for standing in found.standings}
    assert {statuses[tuple(record.params.items())] for record in untimed} == {INFEASIBLE}
    assert not result.front.feasible & {record.number for record in untimed}
    scored = [(r.params["pruning.ratio"], r.params["quantization.bits"]) for r in untimed]
    assert all(one != other for one, other in itertools.combinations(scored, 2))


def test_what_was_timed_and_not_scored_is_measured_and_says_by_whom_it_is_dominated(study) -> None:
    result = study(RATIOS, answer=slow_to_score)
    by_number = {record.number: record for record in result.records}
    unscored = {record.number for record in result.records if "accuracy" not in record.metrics}
    assert unscored
    for standing in certified(result).standings:
        if standing.trial in unscored and standing.status == MEASURED:
            incumbents = by_number[int(standing.why.split("trial ")[1].split()[0])]
            assert incumbents.number in result.front.front
            assert incumbents.metrics["throughput"] >= by_number[standing.trial].metrics["throughput"]
            unscored.remove(standing.trial)
    assert not unscored


def test_a_study_of_a_metric_of_the_corpus_is_decided_by_its_accuracy_at_any_floor(study) -> None:
    """Its samples hold replicates; nothing of them, nor of examples of another mean, moves a verdict."""
    result = study(RATIOS)
    exact = Facts(verdict=Verdict(Decision.REACHED, "exact"))
    records = [replace(record, facts=exact) if is_scored(record) else record for record in result.records]
    stored = {"accuracy": [0.9, 0.1], "ids": ["a", "b"], "replicates": [0.2] * 100}
    for floor in sorted(record.metrics["accuracy"] for record in records if is_scored(record)):
        again = decided_again(records, {record.number: stored for record in records}, floor, 0.01)
        for record in filter(is_scored, again):
            assert is_feasible(record, floor) == (record.metrics["accuracy"] >= floor)
            assert certainty_of(record, floor) == "certain"


def test_where_the_members_are_gone_what_was_not_scored_is_open_or_takes_the_accuracy_of_its_recipe(study) -> None:
    """A recut at a floor that none of those reaches which dominated them."""
    result = study(RATIOS, answer=slow_to_score)
    unscored = [record for record in result.records if "accuracy" not in record.metrics]
    assert unscored
    floor = max(record.metrics["accuracy"] for record in result.records if "accuracy" in record.metrics)
    judged = decided_again(result.records, {0: {"accuracy": (1.0, 0.0), "ids": ("a", "b")}}, floor, 0.01)
    recipes = {recipe(r): r.metrics["accuracy"] for r in result.records if "accuracy" in r.metrics}
    for record in unscored:
        now = judged[record.number]
        assert now.metrics.get("accuracy") == recipes.get(recipe(record))
        assert now.metrics["throughput"] == record.metrics["throughput"]
    front = cut(judged, result.front.objectives, floor, result.config.tradeoff)
    found = certify(Grid(result.config.space.axes), judged, front)
    assert not found.complete


def recipe(record):
    return record.params["pruning.ratio"], record.params["quantization.bits"]


@pytest.mark.parametrize("above", [1e-6, 0.1])
def test_a_recut_that_nothing_keeps_has_a_certificate_too(study, above) -> None:
    result = study(RATIOS, answer=slow_to_score)
    floor = max(r.metrics["accuracy"] for r in result.records if "accuracy" in r.metrics) + above
    front = cut(result.records, result.front.objectives, floor, result.config.tradeoff)
    found = certify(Grid(result.config.space.axes), result.records, front)
    assert front.front == ()
    assert not any("objective" in standing.why for standing in found.standings)
    assert summary_lines(found)


def test_races_that_are_too_short_are_undecided_and_counted_as_open(study) -> None:
    result = study()
    raced = [
        replace(
            record,
            facts=facts_of({"verdict": "open", "verdict_by": "betting"}),
            metrics={**record.metrics, "floor": 0.3},
        )
        for record in result.records
        if "accuracy" in record.metrics
    ]
    front = cut(raced, result.front.objectives, 0.35, result.config.tradeoff)
    found = certify(Grid(result.config.space.axes), raced, front)
    undecided = found.counts[UNDECIDED]
    assert undecided > 0
    assert summary_lines(found)[0].startswith(f"Not complete: {undecided + found.counts.get(OPEN, 0)} cells are open")


# ---- sentences over fronts of every kind


def standing(status: str) -> CellStatus:
    return CellStatus({}, status, None, "")


NOTHING = "nothing that was measured is feasible; "
NO_BETTER = "nothing that was measured is feasible and improves on the baseline; "
TIME = "Measuring what is open takes about 2 min."
EMPTY, ALONE, FULL = ({}, False), ({0: "certain"}, True), ({3: "likely"}, False)


@pytest.mark.parametrize(
    ("front", "opened", "statuses", "sentence"),
    [
        (EMPTY, 0.012, [ASSUMED], f"{NOTHING}at most 1.2% chance that an unmeasured cell is."),
        (EMPTY, 0.0, [INFEASIBLE], f"{NOTHING}no cell is left that may change that."),
        (EMPTY, 0.4, [OPEN, INFEASIBLE], f"{NOTHING}1 cell is open, and it may be. {TIME}"),
        (ALONE, 0.012, [DOMINATED], f"{NO_BETTER}at most 1.2% chance that an unmeasured cell does by more than 2%."),
        (ALONE, 0.0, [MEASURED], f"{NO_BETTER}no cell is left that may change that."),
        (ALONE, 0.4, [OPEN], f"{NO_BETTER}1 cell is open, and it may do so by more than 2%. {TIME}"),
        (FULL, 2e-4, [DOMINATED], "at most 0.1% chance that an unmeasured cell improves the front by more than 2%."),
        (FULL, 0.0, [MEASURED], "no cell is left that may improve the front."),
        (FULL, 0.07, [DOMINATED], "7.0% chance is left that some cell improves the front by more than 2%."),
        (
            FULL, 0.4, [UNDECIDED, OPEN],
            f"2 cells are open, and one of them may improve the front by more than 2%. {TIME}",
        ),
    ],
)  # fmt: skip
def test_what_is_sure_is_said_of_the_front_at_hand(front, opened, statuses, sentence) -> None:
    members, alone = front
    found = Certificate(
        opened <= 0.05, opened, 0.05, 0.02, members, standings=tuple(map(standing, statuses)), seconds=100.0,
        only_baseline=alone,
    )  # fmt: skip
    lines = summary_lines(found)
    assert lines[0] == ("Complete: " if opened <= 0.05 else "Not complete: ") + sentence
    assert lines[1].startswith(f"Of {len(statuses)} cell{'s' if len(statuses) > 1 else ''}: ")
    assert any("keep the accuracy floor" in line for line in lines) == bool(members)


def test_an_empty_front_is_told_from_a_real_study(study) -> None:
    found = certified(study("accuracy_floor.epsilon=1.5"))
    assert (found.members, found.only_baseline) == ({}, False)
    assert NOTHING in summary_lines(found)[0]


def test_a_front_of_the_baseline_alone_is_told_from_a_real_study(study) -> None:
    found = certified(study("accuracy_floor.epsilon=1.0", "space.workload.batch_size=[1]"))
    assert (tuple(found.members), found.only_baseline) == ((0,), True)
    assert NO_BETTER in summary_lines(found)[0]
