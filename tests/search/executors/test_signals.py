"""Signals end a study wherever they come, and leave no lock behind."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from search import cli
from search.errors import Interrupted
from search.executors import signals
from search.executors.signals import deferred, sigterm_interrupts

KINDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Interrupted, signal.SIGHUP: Interrupted}


def ask_for(number: signal.Signals, reached: list[str]) -> None:
    """Get a signal where it is deferred twice."""
    with sigterm_interrupts():
        with deferred():
            with deferred():
                os.kill(os.getpid(), number)
                reached.append("inner")
            reached.append("outer")
        reached.append("never")


def ask_at_once(number: signal.Signals) -> None:
    """Get a signal where nothing is deferred any more."""
    with sigterm_interrupts():
        with deferred():
            pass
        os.kill(os.getpid(), number)
        signal.pause()


@pytest.mark.parametrize("number", KINDS)
def test_a_signal_that_is_deferred_comes_afterwards(number: signal.Signals) -> None:
    reached: list[str] = []
    before = signal.getsignal(number)
    with pytest.raises(KINDS[number]):
        ask_for(number, reached)
    assert reached == ["inner", "outer"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", KINDS)
def test_a_signal_that_is_not_deferred_comes_at_once(number: signal.Signals) -> None:
    with pytest.raises(KINDS[number]):
        ask_at_once(number)


def test_a_closed_terminal_has_an_exit_code_of_its_own() -> None:
    with pytest.raises(Interrupted, match="SIGHUP") as stopped:
        ask_at_once(signal.SIGHUP)
    assert stopped.value.exit_code == 129


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_is_not_deferred_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block may wait for a server that hangs."""
    monkeypatch.setattr(signals, "LATE", 0.05)
    reached: list[str] = []

    def wait() -> None:
        with sigterm_interrupts(), deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("first")
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("second")

    with pytest.raises(Interrupted):
        wait()
    assert reached == ["first"]
    with pytest.raises(Interrupted):  # nothing is left of it
        ask_at_once(signal.SIGTERM)


def as_a_module_in_c(number: int) -> None:
    """Meet a signal as pybind11 does while a module is imported."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(1)
    except BaseException as error:
        raise ImportError("initialization failed") from error


@pytest.mark.parametrize(("number", "kind"), KINDS.items())
def test_a_signal_that_a_library_made_an_error_of_is_a_signal(number: int, kind: type[BaseException]) -> None:
    with pytest.raises(kind), sigterm_interrupts():
        as_a_module_in_c(number)


def test_the_command_tells_such_a_signal_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.cli._call", lambda *_: as_a_module_in_c(signal.SIGINT))
    assert cli.main(["report"]) == 130
    assert capsys.readouterr().err == "paretune: interrupted\n"


def test_an_error_that_no_signal_caused_stays_as_it_is() -> None:
    cause = OSError("disk")

    def fail() -> None:
        raise ImportError("broken") from cause

    with pytest.raises(ImportError, match="broken") as told, sigterm_interrupts():
        fail()
    assert told.value.__cause__ is cause


def test_a_block_of_another_thread_defers_nothing() -> None:
    inside, over = threading.Event(), threading.Event()

    def wait() -> None:
        with deferred():
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait(10)
    try:
        with pytest.raises(Interrupted):
            ask_at_once(signal.SIGTERM)
    finally:
        over.set()
        thread.join()
