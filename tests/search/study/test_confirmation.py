"""The front that is reported is the one that shared rounds confirmed."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import pytest

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import noted
from objectives.measuring.stored_facts import facts_of
from objectives.models.notes import notes_of
from objectives.types import Measurement
from search.commands.stored_study import load
from search.front.front import cut
from search.front.table import frame
from search.front.tradeoff import WeightedLogRatio
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.reporting.files import write_report
from search.reporting.finish import study_info
from search.reporting.tables import confirmation as in_words
from search.reporting.tables import rows_of
from search.study import opening, store
from search.study.confirmation import (
    AGAIN_SHARE,
    PASSES,
    Confirmation,
    Unmeasured,
    confirm_front,
    confirmed,
    is_timed,
    time_again,
)
from search.study.study import run_study
from tests.search.conftest import FakeExecutor, Quiet, closed_form

OBJECTIVES = ("throughput", "peak_memory")


def trial(number: int, speedup: float, memory: float, **more: Any) -> TrialRecord:
    metrics = {"throughput": 100 * speedup, "speedup": speedup, "peak_memory": memory, "accuracy": 0.5}
    metrics |= {"compression_speedup": speedup / 2, "latency.p50": 1 / speedup}
    made = TrialRecord(number, f"u{number}", {"workload.batch_size": number}, "complete", metrics)
    return replace(made, **more)


BASELINE = trial(0, 1.0, 400, is_baseline=True)


def cut_all(records: Any) -> Any:
    return cut(records, OBJECTIVES, 0.4, WeightedLogRatio())


@dataclass
class Rounds:
    """Answers with the true speed-ups and remembers who was measured together."""

    true: dict[int, float]

    def __post_init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, records: Any) -> list[Measurement]:
        self.asked.append([record.number for record in records])
        return [
            Measurement({"speedup": self.true[r.number], "latency.p50": 1 / self.true[r.number], "rounds": 9.0})
            for r in records
        ]


def test_a_member_that_was_only_lucky_is_dropped_and_the_reason_names_who_is_better() -> None:
    records = [BASELINE, trial(1, 2.0, 200), trial(2, 2.1, 300)]
    rounds = Rounds({1: 2.0, 2: 1.9})
    found = confirm_front(records, cut_all, rounds, Confirmation())
    assert rounds.asked == [[1, 2]]
    assert cut_all(confirmed(records, found)).front == (1,)
    assert list(found.dropped) == [2]
    assert "trial 1 is at least as good" in found.dropped[2]
    assert "2.100x in its trial, 1.900x confirmed" in found.dropped[2]


def test_who_takes_the_place_of_a_dropped_member_is_confirmed_too() -> None:
    records = [BASELINE, trial(1, 2.0, 200), trial(2, 1.9, 300), trial(3, 1.95, 100)]
    rounds = Rounds({1: 1.5, 2: 1.9, 3: 1.4})
    found = confirm_front(records, cut_all, rounds, Confirmation())
    assert rounds.asked == [[1, 3], [1, 2, 3]]  # against each other, not the newcomer alone
    assert set(cut_all(confirmed(records, found)).front) == {1, 2, 3}
    assert found.dropped == {}


def test_the_passes_are_bounded() -> None:
    records = [BASELINE, *(trial(number, 3.0 - number / 10, 100) for number in range(1, 9))]
    rounds = Rounds({number: 0.1 * number for number in range(1, 9)})
    confirm_front(records, cut_all, rounds, Confirmation())
    assert len(rounds.asked) == PASSES


def test_what_was_confirmed_stays_when_a_later_pass_fails() -> None:
    records = [BASELINE, trial(1, 2.0, 200), trial(2, 1.9, 300), trial(3, 1.95, 100)]
    rounds = Rounds({1: 1.5, 2: 1.9, 3: 1.4})

    def once(asked: Any) -> list[Measurement]:
        if rounds.asked:
            raise Unmeasured("ProcessExpired: gone")
        return rounds(asked)

    found = confirm_front(records, cut_all, once, Confirmation())
    assert found.failed == "ProcessExpired: gone"
    assert set(found.members) == {1, 3}


def test_a_dropped_trial_that_came_back_is_dropped_no_more() -> None:
    records = [BASELINE, trial(1, 2.0, 200)]
    found = confirm_front(records, cut_all, Rounds({1: 2.0}), Confirmation(dropped={1: "slower then", 7: "still"}))
    assert found.dropped == {7: "still"}


# ---- contended trials


def contended(number: int, speedup: float, **more: Any) -> TrialRecord:
    made = trial(number, speedup, 200, seconds=100.0, notes=notes_of(("contended: much", "head in 16 bits")), **more)
    return replace(made, metrics={**made.metrics, "contended": 1.0})


@dataclass
class Calm(Rounds):
    """Says whether the machine was calm at last."""

    busy: float = 0.0

    def __call__(self, records: Any) -> list[Measurement]:
        found = super().__call__(records)
        return [
            replace(each, metrics={**each.metrics, "contended": self.busy}, notes=notes_of(["drifted: no"]))
            for each in found
        ]


def test_a_contended_trial_is_timed_again_by_itself() -> None:
    records = [BASELINE, contended(1, 2.0), trial(2, 1.5, 100), contended(3, 9.0), contended(4, 9.0, cached_from=3)]
    rounds = Calm({1: 1.8, 3: 1.4})
    found = time_again(records, rounds, Confirmation())
    assert rounds.asked == [[1], [3]]
    now = {record.number: record for record in confirmed(records, found)}
    assert [now[number].metrics["speedup"] for number in (1, 2, 3, 4)] == [1.8, 1.5, 1.4, 1.4]
    assert now[1].metrics["speedup.trial"] == 2.0
    assert now[1].metrics["contended"] == 0.0
    assert now[1].notes == notes_of(("drifted: no", "head in 16 bits"))
    assert not now[1].confirmed
    rounds.asked.clear()
    assert time_again(records, rounds, found) == found
    assert rounds.asked == []


def test_a_trial_that_is_contended_again_keeps_its_figure_and_its_mark() -> None:
    records = [BASELINE, contended(1, 2.0)]
    found = time_again(records, Calm({1: 1.8}, busy=1.0), Confirmation())
    assert found.again == {}
    assert confirmed(records, found)[1].metrics["contended"] == 1.0


def test_timing_again_is_bounded_by_a_share_of_what_the_trials_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("search.study.confirmation.time.monotonic", lambda: now[0])
    records = [BASELINE, *(contended(number, 2.0) for number in range(1, 9))]
    rounds = Calm(dict.fromkeys(range(1, 9), 1.8))

    def slow(asked: Any) -> list[Measurement]:
        now[0] += 90.0
        return rounds(asked)

    time_again(records, slow, Confirmation())
    assert len(rounds.asked) == 8 * 100.0 * AGAIN_SHARE // 90 + 1


def test_what_came_of_timing_again_stays_when_the_worker_dies() -> None:
    records = [BASELINE, contended(1, 2.0), contended(2, 2.0)]

    def dies(asked: Any) -> list[Measurement]:
        if asked[0].number == 2:
            raise Unmeasured("ProcessExpired: gone")
        return Calm({1: 1.8})(asked)

    found = time_again(records, dies, Confirmation())
    assert (set(found.again), found.failed) == ({1}, "ProcessExpired: gone")


def test_a_busy_machine_confirms_nothing_and_the_calm_figures_stay() -> None:
    records = [BASELINE, trial(1, 2.0, 200)]
    rounds = Calm({1: 1.2}, busy=1.0)
    found = confirm_front(records, cut_all, rounds, Confirmation())
    assert rounds.asked == [[1], [1]]
    assert (found.members, found.dropped) == ({}, {})
    assert found.failed == "the machine was busy while the front was confirmed"
    assert confirmed(records, found)[1].metrics["speedup"] == 2.0
    again = confirm_front(records, cut_all, Calm({1: 1.9}), replace(found, failed=""))
    assert again.members[1].metrics["speedup"] == 1.9


def test_a_contended_baseline_gets_new_times_and_stays_the_measure_of_all() -> None:
    base = replace(contended(0, 1.0), is_baseline=True, params={})
    base = replace(base, metrics={**base.metrics, "latency.p95": 9.0, "speedup.error": 5.0})

    def measure(_records: Any) -> list[Measurement]:
        return [Measurement({"speedup": 1.03, "speedup.error": 0.1, "latency.p95": 1.1, "contended": 0.0})]

    found = time_again([base], measure, Confirmation())
    (now,) = confirmed([base], found)
    assert (now.metrics["speedup"], now.metrics["speedup.error"]) == (1.0, 5.0)
    assert (now.metrics["latency.p95"], now.metrics["contended"]) == (1.1, 0.0)


def test_who_lost_its_place_by_being_timed_again_is_listed() -> None:
    records = [BASELINE, trial(1, 2.0, 200), contended(2, 2.1)]
    records[2] = replace(records[2], metrics={**records[2].metrics, "peak_memory": 300})
    rounds = Calm({1: 2.0, 2: 1.5})
    later = time_again(records, rounds, Confirmation())
    found = confirm_front(records, cut_all, rounds, later)
    assert cut_all(confirmed(records, found)).front == (1,)
    assert list(found.dropped) == [2]


def test_confirmed_members_are_not_timed_again_by_themselves() -> None:
    records = [BASELINE, contended(1, 2.0)]
    rounds = Calm({1: 1.8})
    known = Confirmation(members={1: Measurement({"speedup": 1.5})})
    assert time_again(records, rounds, known) == known
    assert rounds.asked == []


def test_shares_of_the_limit_follow_the_seconds() -> None:
    more = {"tpot": 0.2, "ttft": 1.0, "roofline.decode": 0.4, "roofline.prefill": 0.6}
    record = trial(1, 2.0, 200)
    record = replace(record, metrics={**record.metrics, **more})
    later = Measurement({"speedup": 1.0, "tpot": 0.4, "ttft": 0.5})
    (_, now) = confirmed([BASELINE, record], Confirmation({1: later}))
    assert now.metrics["roofline.decode"] == pytest.approx(0.2)
    assert now.metrics["roofline.prefill"] == pytest.approx(1.2)


class Busy(FakeExecutor):
    """A machine that is busy during every other trial and calm at the end."""

    def evaluate(self, candidate: Any, gate: Any = None) -> Future[Any]:
        found = closed_form(candidate)
        busy = float(len(self.asked) % 2)
        self.asked.append(candidate)
        metrics = {**found.metrics, "contended": busy, "speedup": found.metrics["speedup"] * (1 + busy)}
        future: Future[Any] = Future()
        future.set_result(replace(found, metrics=metrics, notes=notes_of(["contended: busy"] if busy else [])))
        return future

    def confirm(self, candidates: Any) -> Future[list[Measurement]]:
        self.confirmed.extend(candidates)
        future: Future[list[Measurement]] = Future()
        found = (closed_form(candidate) for candidate in candidates)
        future.set_result([
            replace(each, metrics={**each.metrics, "contended": 0.0}, samples={"latency": (1.0, 2.0)}) for each in found
        ])  # fmt: skip
        return future


def test_contended_trials_of_a_study_are_timed_again_stored_and_reported(make_config: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("search.study.confirmation.AGAIN_SHARE", 1e9)
    config = exhaustive(make_config, Busy())
    result = run_study(config, Quiet())
    assert len(result.confirmation.again) == 6
    for record in result.records:
        assert record.metrics["contended"] == 0.0
        assert not record.notes
    stored = load([f"study={config.name}", f"home={config.home}"])
    assert stored.confirmation == result.confirmation
    assert [record.metrics for record in stored.records] == [record.metrics for record in result.records]
    attributes = opening.open_study(config, config.sampler).user_attrs
    timed = set(result.confirmation.again) | set(result.confirmation.members)
    kept = {int(name.split(".")[1]): value for name, value in attributes.items() if name.startswith("samples.")}
    assert kept == {number: {"latency": [1.0, 2.0]} for number in timed}


class Stopped(FakeExecutor):
    """Ctrl-C comes while the front is confirmed."""

    def confirm(self, candidates: Any) -> Future[list[Measurement]]:
        raise KeyboardInterrupt


def test_a_study_that_was_stopped_while_it_confirmed_says_so_and_goes_on_later(make_config: Any) -> None:
    config = exhaustive(make_config, Stopped())
    result = run_study(config, Quiet())
    assert result.interrupted is not None
    assert result.confirmation.failed == "interrupted"
    stored = load([f"study={config.name}", f"home={config.home}"])
    assert stored.confirmation.failed == "interrupted"
    assert stored.front == result.front
    later = run_study(exhaustive(make_config, FakeExecutor()), Quiet())
    assert later.confirmation.failed == ""
    assert later.confirmation.members


def test_a_member_that_was_contended_is_what_the_shared_rounds_say() -> None:
    records = [BASELINE, contended(1, 2.0)]
    both = Confirmation(members={1: Measurement({"speedup": 1.5})}, again={1: Measurement({"speedup": 1.8})})
    (_, now) = confirmed(records, both)
    assert (now.metrics["speedup"], now.metrics["speedup.trial"], now.confirmed) == (1.5, 2.0, True)


def test_the_baseline_is_the_measure_of_all_and_not_measured_against_itself() -> None:
    rounds = Rounds({})
    found = confirm_front([BASELINE], cut_all, rounds, Confirmation())
    assert (found, rounds.asked) == (Confirmation(), [])


def test_a_confirmed_record_carries_the_new_speed_and_what_its_trial_said() -> None:
    records = [BASELINE, trial(1, 2.0, 200), trial(2, 2.0, 200, cached_from=1)]
    new = confirmed(records, Confirmation({1: Measurement({"speedup": 1.5, "latency.p50": 0.7, "rounds": 9.0})}))
    assert new[0] == BASELINE
    for record in new[1:]:
        assert record.metrics == {
            "throughput": 150.0, "speedup": 1.5, "speedup.trial": 2.0, "compression_speedup": 0.75,
            "latency.p50": 0.7, "peak_memory": 200, "accuracy": 0.5,
        }  # fmt: skip
    assert [record.confirmed for record in new] == [False, True, False]


@pytest.mark.parametrize(("now", "speed"), [(1.8, "slower"), (2.0, "equal"), (2.4, "faster")])
@pytest.mark.parametrize("before", ["faster", "equal", "slower"])
def test_the_ledger_follows_what_was_confirmed(before: str, now: float, speed: str) -> None:
    facts = {"speed_gain": before, "speed_reason": "kernels", "memory_gain": "smaller", "reference": "baseline"}
    own = trial(1, 2.2, 200, facts=facts_of(facts))
    own = replace(own, metrics={**own.metrics, "speedup.error": 0.01, "compression_speedup.error": 0.02})
    (_, found) = confirmed([BASELINE, own], Confirmation({1: Measurement({"speedup": now, "speedup.error": 0.03})}))
    assert (found.facts.gains.speed, found.facts.gains.memory) == (speed, "smaller")
    assert bool(found.facts.gains.speed_reason) == (speed != "faster")
    assert found.metrics["compression_speedup"] == pytest.approx(now / 2)
    assert found.metrics["speedup.error"] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("objectives", "timed"),
    [
        (("throughput", "peak_memory"), True), (("tpot",), True), (("speedup",), True), (("latency.p95",), True),
        (("weight_bytes", "accuracy"), False), (("memory_ratio",), False),
        (("promised_speedup",), False),
    ],
)  # fmt: skip
def test_only_speeds_need_confirming(objectives: tuple[str, ...], timed: bool) -> None:
    assert is_timed(objectives) is timed


def slower(candidate: Any) -> Measurement:
    """As in the trial, but int4 gains nothing by a larger batch."""
    found = closed_form(candidate)
    if candidate.quantization.bits != 4 or candidate.workload.batch_size == 1:
        return found
    return replace(found, metrics={**found.metrics, "speedup": found.metrics["speedup"] / 6})


class Honest(FakeExecutor):
    """Trials flatter int4 in batches; shared rounds do not."""

    def confirm(self, candidates: Any) -> Future[list[Measurement]]:
        self.confirmed.extend(candidates)
        future: Future[list[Measurement]] = Future()
        future.set_result([slower(candidate) for candidate in candidates])
        return future


class Broken(FakeExecutor):
    """Dies while it confirms."""

    def confirm(self, candidates: Any) -> Future[list[Measurement]]:
        future: Future[list[Measurement]] = Future()
        future.set_exception(Unmeasured("the worker died"))
        return future


def exhaustive(make_config: Any, executor: Any, *overrides: str) -> Any:
    few = ("space.pruning.ratio=[0.0,0.5]", "n_trials=12")
    return replace(make_config("sampler=exhaustive", *few, *overrides), executor=executor)


def test_a_study_confirms_its_front_keeps_it_and_does_not_measure_it_twice(make_config: Any) -> None:
    config = exhaustive(make_config, Honest())
    first = run_study(config, Quiet())
    assert {record.number for record in first.records if record.confirmed} >= set(first.front.front) - {0}
    assert first.confirmation.dropped
    assert not set(first.confirmation.dropped) & set(first.front.front)
    again = exhaustive(make_config, Honest())
    second = run_study(again, Quiet())
    assert again.executor.confirmed == []
    assert second.front == first.front
    assert second.confirmation == first.confirmation
    stored = load([f"study={config.name}", f"home={config.home}"])
    assert stored.front == first.front
    assert stored.confirmation == first.confirmation


def test_confirm_false_takes_trials_at_their_word(make_config: Any) -> None:
    config = exhaustive(make_config, Honest(), "confirm=false")
    result = run_study(config, Quiet())
    assert config.executor.confirmed == []
    assert not any(record.confirmed for record in result.records)


def test_a_failed_confirmation_costs_a_warning_and_is_said_in_the_report(make_config: Any, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        result = run_study(exhaustive(make_config, Broken()), Quiet())
    assert "some trials were not timed again: the worker died" in caplog.text
    assert result.front.front
    info = study_info(
        result.config,
        result.records,
        result.front,
        result.machine,
        result.stop_reason,
        result.confirmation,
        result.certificate,
    )
    told = in_words(info, rows_of(frame(result.records, result.front)))
    assert told[0].startswith("Complete: ")
    assert told[-2:] == [
        "Some trials were not timed again: the worker died.",
        "Not confirmed: each speed comes from a single trial.",
    ]
    stored = load([f"study={result.config.name}", f"home={result.config.home}"])
    assert stored.confirmation.failed == "the worker died"
    mended = exhaustive(make_config, Honest())
    assert run_study(mended, Quiet()).confirmation.failed == ""
    assert store.confirmation_of(opening.open_study(mended, mended.sampler)).failed == ""


def test_the_report_names_who_was_dropped_and_what_was_promised(make_config: Any, tmp_path: Any) -> None:
    result = run_study(exhaustive(make_config, Honest()), Quiet())
    gained = {"speed_gain": "slower", "speed_reason": "<kernels>", "memory_gain": "smaller"}
    compared = noted("compression_speedup", Estimate(0.97, 0.95, 0.99))
    records = [
        replace(
            record,
            facts=facts_of(gained),
            metrics={
                **record.metrics,
                **compared,
                "weight_ratio": 0.31,
                "promised_speedup": 1.77,
                "roofline.decode": 0.42,
            },
        )
        for record in result.records
    ]
    info = study_info(
        result.config, tuple(records), result.front, {}, StopReason.BUDGET, result.confirmation, result.certificate
    )
    write_report(tmp_path, info, records, result.front)
    number, why = next(iter(result.confirmation.dropped.items()))
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert f"trial {number}" in text
        assert why.split(" (")[0] in text
        for piece in ("Promised and delivered", "0.31×", "1.77×", "42%", "slower than the dense model"):
            assert piece in text, (name, piece)
        assert "<kernels>" not in text
    assert "±1.0%" in (tmp_path / "report.html").read_text()
