"""A plugin of pytest: a parallel run ends with its closing line, and not with 0, whatever one test does to its process.

Three limits, each for what the one before cannot reach: ``timeout`` (pytest-timeout) ends a test that runs in Python,
``faulthandler_timeout`` the process of one that hangs in C, ``--run-limit`` whatever is left of the run. A process that
ends is replaced, goes on after the test that ended it, and that test has failed; xdist 3.8 would give the same test to
the next process, until none is left and the rest waits for ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

GRACE = 5.0
"""Seconds after which what Ctrl-C did not end is ended."""


class OnceEach(LoadFileScheduling):
    """Whole files; a test that ended its process is not run again."""

    def remove_node(self, node: Any) -> str | None:
        """The test that ``node`` was running when it went, None where it went as it should."""
        work = self.assigned_work.pop(node)
        if hasattr(node, "workeroutput"):  # it sent its results
            return None
        ended = next((test for tests in work.values() for test, done in tests.items() if not done), None)
        if ended is None:  # between two tests: after the last of a file, or before the first of all
            return next((f"{test} (afterwards)" for tests in reversed(work.values()) for test in reversed(tests)), None)
        for tests in work.values():
            if ended in tests:
                tests[ended] = True
        left = {file: tests for file, tests in work.items() if not all(tests.values())}
        self.workqueue.update(left)
        for other in self.nodes:
            self._reschedule(other)
        return ended

    def _reschedule(self, node: Any) -> None:
        if node in self.registered_collections and not node._down:  # else it is on its way, or gone
            super()._reschedule(node)


class Verdict:
    """Of the process that tells the others what to do."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._limit = float(config.getoption("--run-limit"))
        self._running: dict[str, None] = {}
        self._lost = 0

    def pytest_sessionstart(self) -> None:
        _after(self._limit, lambda: self._stop(f"the run took longer than {self._limit:.0f} s"))

    def pytest_keyboard_interrupt(self) -> None:
        _after(GRACE, _end_children)
        _after(2 * GRACE, lambda: self._stop("interrupted"))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    def pytest_handlecrashitem(self, crashitem: str) -> None:
        self._running.pop(crashitem, None)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> OnceEach:
        return OnceEach(config, log)

    def pytest_testnodedown(self, error: object) -> None:
        self._lost += bool(error)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._lost and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _stop(self, why: str) -> None:
        """End the run here and now, with what is known of it."""
        _end_children()
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        for nodeid in list(self._running):
            location = (nodeid.split("::")[0], None, nodeid)
            report = pytest.TestReport(nodeid, location, {}, "failed", f"still running: {why}", "call")
            reporter.stats.setdefault("failed", []).append(report)
        reporter.ensure_newline()
        for show in (reporter.summary_failures, reporter.short_test_summary):
            show()
        reporter.write_sep("!", why)
        reporter.summary_stats()
        reporter._tw.flush()
        os._exit(pytest.ExitCode.INTERRUPTED)


def _after(seconds: float, act: Callable[[], None]) -> None:
    def wait() -> None:
        time.sleep(seconds)
        act()

    threading.Thread(target=wait, daemon=True).start()


def _end_children() -> None:
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


FIRST = ("tests/test_cli.py", "tests/search/executors/test_executors.py", "tests/search/", "tests/test_")
"""Files that wait much begin; what is left at the end is short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole files in the order of :data:`FIRST`; pytest 9 sorts the arguments of a command line itself."""

    def place(item: pytest.Item) -> int:
        return next((place for place, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    items.sort(key=place)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-limit", default=1500, help="seconds for the whole run")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        _take_processors(config.workerinput)
    else:
        config.pluginmanager.register(Verdict(config), "verdict")


def _take_processors(worker: dict[str, Any]) -> None:
    """Let a process of the run, and all that it starts, run on processors of its own.

    A kernel of two threads waits for both of them: on two processors that other tests use it takes 14 times as long as
    on one that is free.
    """
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        own = processors[int(worker["workerid"].removeprefix("gw")) % worker["workercount"] :: worker["workercount"]]
        os.sched_setaffinity(0, own or processors)
