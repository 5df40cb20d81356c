"""No trial waits for a tracker that hangs, and what did not arrive is told and sent as soon as it can be."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from search.errors import ConfigError
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.tracking import outbox
from search.tracking.outbox import Outbox
from search.tracking.protocol import StudyEnd, StudyHeader

HEADER = StudyHeader("u", "study", "project", Path("home"), {})


@dataclass
class Recording:
    """A tracker that keeps what it gets, and meets ``fault`` before each call."""

    fault: Callable[[], object] = lambda: None
    opened: int = 0
    kept: list[str] = field(default_factory=list)

    def open(self, _header: StudyHeader) -> Recording:
        self.fault()
        self.opened += 1
        return self

    def log(self, record: TrialRecord) -> None:
        self.fault()
        self.kept.append(record.uid)

    def close(self, result: StudyEnd) -> str:
        self.fault()
        self.kept += [record.uid for record in result.records if record.uid not in self.kept]
        return "sent"


def trial(number: int) -> TrialRecord:
    return TrialRecord(number, f"u:{number}", {}, "complete")


def end(count: int) -> StudyEnd:
    return StudyEnd(tuple(map(trial, range(count))), StopReason.COMPLETE, {}, {}, ())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"OPENING": 0.3, "MOMENT": 0.1, "EACH": 0.02, "PAUSE": 0.2}.items():
        monkeypatch.setattr(outbox, name, seconds)


@pytest.fixture
def hung() -> Iterator[Event]:
    """An event for which a hung tracker waits; it is set at the end, so that no thread is left."""
    event = Event()
    yield event
    event.set()


def test_a_tracker_that_answers_has_each_trial_before_the_next_one_is_timed() -> None:
    tracker = Recording()
    box = Outbox(tracker, HEADER)
    box.ready()
    for number in range(3):
        box.log(trial(number))
        assert tracker.kept[-1] == f"u:{number}"
    assert box.close(end(3)) == "sent"
    assert (tracker.opened, tracker.kept) == (1, ["u:0", "u:1", "u:2"])


def test_a_hung_tracker_costs_a_moment_once_and_the_end_says_what_is_missing(
    hung: Event, caplog: pytest.LogCaptureFixture
) -> None:
    box = Outbox(Recording(fault=hung.wait), HEADER)
    began = time.monotonic()
    box.ready()
    for number in range(50):
        box.log(trial(number))
    assert time.monotonic() - began < 0.3 + 0.1 + 0.2
    with caplog.at_level(logging.WARNING, logger="search.tracking"):
        line = box.close(end(50))
    assert "50 trials and the summary were not sent" in line
    assert "paretune sync study=study" in line
    assert len(caplog.records) == 1


def test_one_that_hangs_in_the_middle_keeps_what_came_before(hung: Event) -> None:
    tracker = Recording()
    box = Outbox(tracker, HEADER)
    box.ready()
    box.log(trial(0))
    tracker.fault = hung.wait
    for number in range(1, 4):
        box.log(trial(number))
    assert "3 trials" in box.close(end(4))


def test_a_failure_is_told_once_and_the_end_opens_anew_and_sends_what_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> None:
        raise ConnectionError("refused\nwith more lines")

    tracker = Recording(fault=refuse)
    box = Outbox(tracker, HEADER)
    with caplog.at_level(logging.WARNING, logger="search.tracking"):
        box.ready()
        for number in range(3):
            box.log(trial(number))
        tracker.fault = lambda: None
        assert box.close(end(3)) == "sent"
    assert tracker.kept == ["u:0", "u:1", "u:2"]
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]
    assert "ConnectionError: refused" in caplog.text


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


@pytest.mark.parametrize(
    ("fault", "told"),
    [(SystemExit(3), "SystemExit: 3"), (KeyboardInterrupt(), "KeyboardInterrupt "), (Wordless(), "Wordless ")],
)
def test_a_tracker_that_exits_is_one_that_failed(
    fault: BaseException, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def leave() -> None:
        raise fault

    tracker = Recording()
    box = Outbox(tracker, HEADER)
    with caplog.at_level(logging.WARNING, logger="search.tracking"):
        box.ready()
        tracker.fault = leave
        for number in range(2):
            box.log(trial(number))
            box._last.result(timeout=5)
        tracker.fault = lambda: None
        assert box.close(end(2)) == "sent"
    assert tracker.kept == ["u:0", "u:1"]
    assert len(caplog.records) == 1
    assert f"the tracker failed: {told}" in caplog.text


def test_a_tracker_that_exits_at_the_end_keeps_nobody_waiting() -> None:
    def leave() -> None:
        raise SystemExit(3)

    tracker = Recording()
    box = Outbox(tracker, HEADER)
    box.ready()
    tracker.fault = leave
    began = time.monotonic()
    assert "2 trials and the summary were not sent" in box.close(end(2))
    assert time.monotonic() - began < 0.2


def test_a_tracker_that_is_back_after_a_pause_is_used_again() -> None:
    faults: list[Any] = [OSError("away")]

    def once() -> None:
        if faults:
            raise faults.pop()

    tracker = Recording(fault=once)
    box = Outbox(tracker, HEADER)
    box.ready()
    box.log(trial(0))
    assert tracker.kept == []
    time.sleep(0.25)
    box.log(trial(1))
    box._last.result(timeout=5)
    assert tracker.kept == ["u:1"]
    assert box.close(end(2)) == "sent"


def test_settings_that_a_tracker_refuses_end_the_study() -> None:
    def refuse() -> None:
        raise ConfigError("tracker.uri: no URL")

    box = Outbox(Recording(fault=refuse), HEADER)
    with pytest.raises(ConfigError, match=r"tracker\.uri"):
        box.ready()
    box.stop()
