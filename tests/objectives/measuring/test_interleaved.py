"""Interleaving: who runs when, when it stops and why, and what else ran meanwhile. On a clock that stands in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from typing import Any

import numpy as np
import pydantic
import pytest

from objectives.measuring import interleaved
from objectives.measuring.interleaved import Interleaved, Sampled
from objectives.measuring.strain import Contention
from objectives.types import Timing

Run = Callable[[], Timing]


class Clock:
    """A clock that only runs advance, and counters of strain that only ``waits`` advance: a share per round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, waits: Sequence[float] = ()) -> None:
        self.now, self.log = 0.0, []  # type: ignore[var-annotated]
        self._ran = self._waited = 0.0
        self._waits = chain(waits, repeat(0.0))
        self._reads = 0
        monkeypatch.setattr(interleaved, "perf_counter", lambda: self.now)
        monkeypatch.setattr(interleaved, "read_strain", self._strain)

    def _strain(self) -> Contention:
        self._reads += 1
        if self._reads % 2 == 0:  # the end of a round
            wait = next(self._waits)
            self._ran, self._waited = self._ran + 1 - wait, self._waited + wait
        return Contention(self._ran, self._waited, 0.0, self.now)

    def run(self, name: str, seconds: Sequence[float], items: int = 1, cpu: float = 1.0) -> Run:
        """A run that takes each of ``seconds`` in turn, over and over."""
        each: Iterator[float] = chain.from_iterable(repeat(tuple(seconds)))

        def run() -> Timing:
            took = next(each)
            self.log.append(name)
            self.now += took
            return Timing((took,), items, cpu=(took * cpu,))

        return run


SETTINGS: dict[str, Any] = {
    "warmups": 0, "min_rounds": 3, "max_rounds": 9, "min_seconds": 0.0, "max_seconds": 1e9, "patience": 1000.0,
}  # fmt: skip
NOISY, STEADY = (0.5, 1.0, 2.0), (0.5, 0.501, 0.499)
NOISIER = tuple(np.random.default_rng(0).lognormal(size=200).tolist())


def timed(clock: Clock, candidate: Sequence[float], reference: Sequence[float] = (1.0,), **settings: Any) -> Sampled:
    """A reference of 2 items beside a candidate of 6."""
    runs = [clock.run("reference", reference, 2), clock.run("candidate", candidate, 6)]
    return Interleaved(**{**SETTINGS, **settings}).time(runs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# ---- turns


def test_runs_take_turns_and_the_order_alternates(clock: Clock) -> None:
    timed(clock, NOISY, max_rounds=4)
    assert clock.log == ["reference", "candidate", "candidate", "reference"] * 2


def test_three_runs_take_turns_too(clock: Clock) -> None:
    runs = [clock.run(name, (1.0,)) for name in "abc"]
    sampled = Interleaved(**{**SETTINGS, "max_rounds": 3}).time(runs)
    assert "".join(clock.log) == "abccbaabc"
    assert len(sampled.timings) == len(sampled.ratios) == len(sampled.estimates) == 3


def test_warmups_are_thrown_away_and_do_not_use_up_the_budget(clock: Clock) -> None:
    cold, warm = (1000.0, *NOISY * 3), (1000.0, *[1.0] * 9)
    sampled = timed(clock, cold, reference=warm, warmups=1, max_seconds=100.0)
    assert 1000.0 not in sampled.timings[1].latency
    assert sampled.stopped == "rounds"
    assert len(sampled.timings[1].latency) == 9
    assert sampled.conditions["timing_seconds"] > 1000


def test_a_ratio_is_of_throughputs_of_one_round(clock: Clock) -> None:
    sampled = timed(clock, NOISY, reference=(1.0, 2.0, 4.0), max_rounds=3)
    assert sampled.timings[1] == Timing((0.5, 1.0, 2.0), 6, cpu=(0.5, 1.0, 2.0))
    assert sampled.timings[0].latency == (1.0, 2.0, 4.0)
    assert sampled.ratios == ((1.0, 1.0, 1.0), (6.0, 6.0, 6.0))  # 6 items in s seconds over 2 items in 2 s
    assert sampled.estimates[1].value == 6.0


def test_the_estimate_is_the_median_of_the_ratios(clock: Clock) -> None:
    sampled = timed(clock, (0.5, 1.0, 3.0), max_rounds=3)
    assert sampled.ratios[1] == (6.0, 3.0, 1.0)
    assert sampled.estimates[1].value == 3.0
    assert sampled.estimates[0].value == 1.0  # of the first run: its latency


def test_a_run_alone_has_ratios_of_one_and_is_known_by_its_latency(clock: Clock) -> None:
    sampled = Interleaved(**SETTINGS).time([clock.run("alone", NOISY)])
    assert set(sampled.ratios[0]) == {1.0}
    assert len(sampled.ratios[0]) == len(sampled.timings[0].latency) == 9
    assert sampled.estimates[0].value == 1.0
    assert (sampled.estimates[0].low, sampled.estimates[0].high) != (1.0, 1.0)


def test_short_runs_are_repeated_within_their_turn_and_averaged(clock: Clock) -> None:
    sampled = timed(clock, (0.1,), warmups=1, max_rounds=3)
    turn = (1.0 + 0.1) / 2  # of a run: the mean over all of them
    repeats = round(turn / 0.1)
    assert clock.log[2:10] == ["reference", *["candidate"] * repeats, "candidate"]
    assert len(sampled.timings[1].latency) == 3 * repeats
    assert len(sampled.ratios[1]) == 3
    assert sampled.ratios[1][0] == pytest.approx(30.0)  # 6 items in 0.1 s over 2 in 1 s


def test_repeats_are_bounded_and_very_short_runs_fill_ten_milliseconds(clock: Clock) -> None:
    timed(clock, (1e-6,), reference=(1e-3,), warmups=1, max_rounds=3)
    first = clock.log[2 : clock.log.index("candidate", 2)]
    assert first == ["reference"] * 10
    assert clock.log.count("candidate") == 1 + 3 * 32


# ---- stopping


def test_steady_ratios_stop_by_precision_at_the_least_rounds(clock: Clock) -> None:
    sampled = timed(clock, STEADY, min_rounds=6, max_rounds=200)
    assert (sampled.stopped, len(sampled.ratios[1])) == ("precision", 6)
    assert sampled.estimates[1].error <= 0.02


def test_more_least_rounds_are_done_though_precision_is_reached(clock: Clock) -> None:
    sampled = timed(clock, STEADY, min_rounds=11, max_rounds=200)
    assert (sampled.stopped, len(sampled.ratios[1])) == ("precision", 11)


@pytest.mark.parametrize("fewest", [1, 2, 5])
def test_fewer_than_six_rounds_never_claim_precision(clock: Clock, fewest: int) -> None:
    few = timed(clock, (0.5,), min_rounds=fewest, max_rounds=5)
    assert (few.stopped, len(few.ratios[1])) == ("rounds", 5)
    assert few.estimates[1].error == 0.0  # five equal ratios: normal noise of no width
    more = timed(clock, (0.5,), min_rounds=fewest, max_rounds=50)
    assert more.stopped == "precision"
    assert 6 <= len(more.ratios[1]) <= 8


def test_noisy_ratios_stop_at_the_most_rounds(clock: Clock) -> None:
    sampled = timed(clock, NOISY, min_rounds=6, max_rounds=9)
    assert (sampled.stopped, len(sampled.ratios[1])) == ("rounds", 9)
    assert timed(clock, NOISY, min_rounds=6, max_rounds=9, precision=10.0).stopped == "precision"


def test_noise_of_the_first_run_alone_does_not_matter_where_ratios_are_steady(clock: Clock) -> None:
    disturbed = (1.0, 3.0, 2.0, 7.0, 5.0, 4.0)
    sampled = timed(clock, disturbed, reference=disturbed, min_rounds=6)
    assert sampled.stopped == "precision"


def test_late_runs_stop_by_seconds_but_not_before_the_least_rounds(clock: Clock) -> None:
    slow = (10.0, 20.0, 15.0, 30.0, 12.0, 25.0)  # and a second of the reference beside each
    sampled = timed(clock, slow, max_seconds=60.0)
    assert (sampled.stopped, len(sampled.ratios[1])) == ("seconds", 4)
    sampled = timed(clock, slow, max_seconds=0.1)
    assert (sampled.stopped, len(sampled.ratios[1])) == ("seconds", 3)


@pytest.mark.parametrize("most", [7, 50, 100, 101])
def test_the_most_rounds_are_never_exceeded(clock: Clock, most: int) -> None:
    sampled = timed(clock, NOISIER, min_rounds=6, max_rounds=most, precision=1e-9)
    assert len(sampled.ratios[1]) == most


def test_slow_runs_are_neither_cut_short_nor_called_contended(clock: Clock) -> None:
    sampled = timed(clock, (9.0,), min_rounds=3, max_rounds=9, max_seconds=10.0, patience=3.0)
    assert (sampled.stopped, len(sampled.ratios[1]), sampled.contended) == ("seconds", 3, False)


def test_the_least_rounds_are_waited_for_three_budgets_and_no_longer(clock: Clock) -> None:
    """Six rounds of 41 s would meet the worker's time limit, and so would the dense model's."""
    sampled = timed(clock, (40.0,), min_rounds=6, max_rounds=9, max_seconds=10.0, patience=3.0)
    assert (sampled.stopped, len(sampled.ratios[1]), sampled.contended) == ("seconds", 1, False)
    assert sampled.estimates[1].value == pytest.approx(6 / 40 / 2)


def test_runs_that_take_longer_than_the_budget_are_warmed_up_once(clock: Clock) -> None:
    sampled = timed(clock, (40.0,), warmups=5, max_rounds=3, max_seconds=10.0)
    assert clock.log[:2] == ["reference", "candidate"]
    assert clock.log.count("candidate") == 1 + len(sampled.ratios[1])


def test_repeats_are_those_of_the_last_warm_up(clock: Clock) -> None:
    """The first pays for what is made once."""
    timed(clock, (10.0, *[1.0] * 20), reference=(1.0,), warmups=2, max_rounds=3)
    assert clock.log.count("reference") == 2 + 3


def test_the_interval_is_looked_at_ever_more_rarely(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look is a chance to stop too early."""
    looks: list[int] = []
    stop = Interleaved._stop

    def watched(self: Interleaved, counted: Sequence[Any], *rest: Any) -> Any:
        looks.append(len(counted))
        return stop(self, counted, *rest)

    monkeypatch.setattr(Interleaved, "_stop", watched)
    timed(clock, NOISIER, min_rounds=6, max_rounds=100, precision=1e-9)
    assert len(clock.log) == 200
    assert looks[0] == 6
    assert looks[-1] == 100
    gaps = [later - earlier for earlier, later in pairwise(looks[:-1])]
    assert gaps == sorted(gaps)
    assert len(looks) < 30


def test_many_runs_get_the_time_of_each_and_are_known_twice_as_precisely() -> None:
    one = Interleaved(min_seconds=1.0, max_seconds=4.0, patience=2.0)
    assert one.for_many(3) == Interleaved(min_seconds=3.0, max_seconds=12.0, patience=6.0, precision=0.01)


def test_the_least_rounds_cannot_be_more_than_the_most() -> None:
    with pytest.raises(pydantic.ValidationError, match="min_rounds must be <= max_rounds, got 5 and 4"):
        Interleaved(min_rounds=5, max_rounds=4)
    Interleaved(min_rounds=4, max_rounds=4)


# ---- which clock


def test_cpu_time_is_a_clock_of_its_own(clock: Clock) -> None:
    runs = [clock.run("reference", (1.0,), cpu=1.0), clock.run("candidate", NOISY, cpu=0.0)]
    runs[1] = lambda: Timing((next(noise),), 1, cpu=(0.5,))
    noise = chain.from_iterable(repeat(NOISY))
    sampled = Interleaved(**{**SETTINGS, "min_rounds": 6, "clock": "cpu"}).time(runs)
    assert sampled.stopped == "precision"
    assert set(sampled.ratios[1]) == {2.0}
    assert sampled.timings[1].latency[:3] == NOISY


def test_cpu_seconds_over_wall_seconds_are_told(clock: Clock) -> None:
    runs = [clock.run("reference", (1.0,), cpu=1.0), clock.run("candidate", (3.0,), cpu=2.0)]
    sampled = Interleaved(**SETTINGS).time(runs)
    assert sampled.conditions["cpu_per_wall"] == pytest.approx((1 + 6) / 4)


def test_threads_that_wait_use_no_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.9,) * 100)
    runs = [clock.run("reference", (1.0,)), clock.run("candidate", (1.0,))]
    sampled = Interleaved(**{**SETTINGS, "max_rounds": 6, "clock": "cpu"}).time(runs)
    assert (sampled.conditions["rounds_strained"], sampled.contended) == (0, False)


# ---- pace


class Levels:
    """A pace that takes each of ``levels`` in turn, one a round; the best is 1."""

    best = 1.0

    def __init__(self, levels: Sequence[float]) -> None:
        self._levels = iter(levels)
        self.probes = 0

    def probe(self) -> None:
        self.probes += 1

    def level(self, _since: float) -> float:
        return next(self._levels)


def paced(clock: Clock, candidate: Sequence[float], levels: Sequence[float], **settings: Any) -> Sampled:
    runs = [clock.run("reference", (1.0,), 2), clock.run("candidate", candidate, 6)]
    return Interleaved(**{**SETTINGS, **settings}).time(runs, Levels(levels))  # type: ignore[arg-type]


def test_a_round_on_a_slow_machine_is_put_aside_and_repeated(clock: Clock) -> None:
    levels = (1.0, 1.2, 1.0, 1.11, 1.1, 0.9, 1.0, 1.0)
    sampled = paced(clock, (1.0, 50.0, 1.0, 60.0, 1.0, 1.0, 1.0, 1.0), levels, min_rounds=6, max_rounds=6)
    assert set(sampled.timings[1].latency) == {1.0}
    assert (sampled.conditions["rounds"], sampled.conditions["rounds_strained"]) == (6, 2)
    assert (sampled.conditions["slowdown"], sampled.conditions["contended"]) == (1.0, 0.0)


def test_a_machine_that_stays_slow_is_measured_and_called_contended(clock: Clock) -> None:
    sampled = paced(clock, NOISY, [1.5] * 1000, min_rounds=6, max_rounds=9, patience=4.0)
    assert sampled.contended
    assert (sampled.conditions["rounds"], sampled.conditions["slowdown"], sampled.conditions["contended"]) == (
        9,
        1.5,
        1,
    )


def test_how_slow_a_machine_may_be_is_a_setting(clock: Clock) -> None:
    sampled = paced(clock, (1.0,), [1.3] * 6, min_rounds=6, max_rounds=6, slowdown=0.4)
    assert sampled.conditions["rounds_strained"] == 0


def test_a_better_best_turns_earlier_rounds_into_slow_ones(clock: Clock) -> None:
    pace = Levels([1.0] * 1000)
    runs = [clock.run("reference", (1.0,)), clock.run("candidate", [9.0] * 4 + [1.0] * 100)]
    pace._levels = iter([1.3] * 4 + [1.0] * 100)  # the first four rounds were all there was to compare with
    pace.best = 1.3

    def level(_since: float) -> float:
        found = next(pace._levels)
        pace.best = min(pace.best, found)
        return found

    pace.level = level  # type: ignore[method-assign]
    sampled = Interleaved(**{**SETTINGS, "min_rounds": 6}).time(runs, pace)  # type: ignore[arg-type]
    assert set(sampled.timings[1].latency) == {1.0}


def test_the_pace_is_probed_before_every_run_and_after_the_last(clock: Clock) -> None:
    pace = Levels([1.0] * 3)
    Interleaved(**{**SETTINGS, "max_rounds": 3}).time([clock.run("a", NOISY), clock.run("b", NOISY)], pace)  # type: ignore[arg-type]
    assert pace.probes == 3 * 3


def test_the_least_seconds_are_of_calm_rounds(clock: Clock) -> None:
    sampled = paced(clock, STEADY, [2.0] * 10 + [1.0] * 1000, min_rounds=6, max_rounds=200, min_seconds=12.0)
    assert sampled.stopped == "precision"
    assert sampled.conditions["rounds_strained"] == 10
    assert 12.0 <= sum(sum(timing.latency) for timing in sampled.timings) <= 15.0


# ---- strain


def test_a_strained_round_is_put_aside_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.0, 0.5, 0.0, 0.9))
    sampled = timed(clock, (1.0, 50.0, 1.0, 60.0, 1.0, 1.0, 1.0, 1.0), min_rounds=6, max_rounds=6)
    assert sampled.conditions["rounds_strained"] == 2
    assert sampled.conditions["rounds"] == len(sampled.ratios[1]) == 6
    assert set(sampled.timings[1].latency) == {1.0}
    assert not sampled.contended
    assert sampled.conditions["wait"] == 0.0


def test_waiting_within_the_limit_is_no_strain(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.05,) * 6)
    sampled = timed(clock, (1.0,), min_rounds=6, max_rounds=6)
    assert sampled.conditions["rounds_strained"] == 0
    assert sampled.conditions["wait"] == pytest.approx(0.05)
    clock = Clock(monkeypatch, waits=(0.05,) * 2)
    assert timed(clock, (1.0,), min_rounds=6, max_rounds=6, strain=0.04).conditions["rounds_strained"] == 2


def test_a_machine_that_is_busy_for_good_is_measured_and_called_contended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.5,) * 1000)
    sampled = timed(clock, NOISY, min_rounds=6, max_rounds=9, patience=4.0)
    assert sampled.contended
    assert sampled.stopped == "rounds"
    assert sampled.conditions["rounds"] == sampled.conditions["rounds_strained"] == len(sampled.ratios[1]) == 9
    assert sampled.conditions["wait"] == pytest.approx(0.5)


def test_calm_rounds_are_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One calm round in ten: six would take 60 rounds of 2 s."""
    clock = Clock(monkeypatch, waits=((0.0,) + (0.5,) * 9) * 100)
    sampled = timed(clock, (1.0,), min_rounds=6, max_rounds=9, patience=20.0)
    assert sampled.contended
    assert 20 <= clock.now <= 20 + 2 * 3
    assert len(sampled.ratios[1]) == sampled.conditions["rounds"] >= 9


def test_calm_rounds_alone_count_where_there_are_enough_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.0, 0.5) * 500)
    sampled = timed(clock, (1.0, 50.0, 60.0, 1.0), min_rounds=6, max_rounds=9, patience=500.0)
    assert not sampled.contended
    assert sampled.conditions["wait"] == 0.0
    assert len(sampled.ratios[1]) == 9


def test_strained_rounds_use_up_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.5,) * 1000)
    sampled = timed(clock, NOISIER, min_rounds=6, max_rounds=1000, patience=30.0, max_seconds=40.0)
    assert sampled.stopped == "seconds"
    assert sampled.contended
    assert clock.now <= 40 + 1 + max(NOISIER)


def test_without_patience_one_strained_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.5,))
    sampled = timed(clock, (1.0,), min_rounds=6, max_rounds=6, patience=0.0)
    assert sampled.contended
    assert len(sampled.ratios[1]) == 6


def test_precision_is_not_claimed_before_the_least_seconds(clock: Clock) -> None:
    sampled = timed(clock, STEADY, min_rounds=6, max_rounds=100, min_seconds=20.0)
    assert sampled.stopped == "precision"
    assert 20 <= clock.now <= 26


def test_steal_is_told_over_the_rounds_that_count(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10_000, 5))
    monkeypatch.setattr(interleaved, "read_strain", lambda: Contention(0.0, 0.0, next(ticks) / 10, clock.now))
    sampled = timed(clock, (1.0,), max_rounds=3)
    assert sampled.conditions["steal"] == pytest.approx(3 * 0.5 / 6)


# ---- who is behind


def behind(clock: Clock, candidate: Sequence[float], stop_below: float, **settings: Any) -> Sampled:
    runs = [clock.run("reference", (1.0,), 2), clock.run("candidate", candidate, 6)]  # ratio 3 at one second
    return Interleaved(**{**SETTINGS, "max_rounds": 40, "precision": 1e-6, **settings}).time(
        runs, stop_below=stop_below
    )


def test_what_is_behind_for_sure_is_timed_no_further(clock: Clock) -> None:
    sampled = behind(clock, (1.0, 1.01, 0.99), stop_below=4.0, min_seconds=1e3)
    assert sampled.stopped == "behind"
    assert len(sampled.ratios[1]) == 3
    assert sampled.estimates[1].value == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(
    ("candidate", "stop_below"),
    [
        ((1.0, 1.01, 0.99), 3.0),  # as fast
        ((1.0, 1.01, 0.99), 3.06),  # so little behind that another state of the machine would turn it round
        (NOISY, 4.0),  # too noisy to say
    ],
)
def test_what_may_not_be_behind_is_timed_as_well_as_any(clock: Clock, candidate: Any, stop_below: float) -> None:
    sampled = behind(clock, candidate, stop_below, min_seconds=1e9)
    assert sampled.stopped == "rounds"
    assert len(sampled.ratios[1]) == 40


def test_a_few_short_rounds_do_not_say_who_is_behind(clock: Clock) -> None:
    runs = [clock.run("reference", (0.01,), 2), clock.run("candidate", (0.01, 0.0101, 0.0099), 6)]
    sampled = Interleaved(**{**SETTINGS, "max_rounds": 200, "precision": 1e-6}).time(runs, stop_below=4.0)
    assert sampled.stopped == "behind"
    assert sum(map(sum, (timing.latency for timing in sampled.timings))) == pytest.approx(0.5, rel=0.2)


def test_hardly_anybody_is_called_behind_who_is_not() -> None:
    """A score of looks at noise of a tenth, of runs that are exactly as fast as asked: three in a hundred at most."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        ratios = (3.0 * rng.lognormal(sigma=0.1, size=60)).tolist()
        rounds = 3
        while rounds <= 60:
            if interleaved.falls_behind(ratios[:rounds], float(rounds), 3.0):
                wrong += 1
                break
            rounds = interleaved.next_look(rounds)
    assert wrong <= 30


def test_who_is_behind_is_so_by_the_calm_rounds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, waits=(0.0, 0.5))  # the second round is strained, and says something else
    sampled = behind(clock, (1.0, 0.2, 1.01, 0.99), stop_below=4.0)
    assert sampled.stopped == "behind"
    assert not sampled.contended
    assert max(sampled.ratios[1]) < 3.1
    assert sampled.conditions["rounds_strained"] == 1
