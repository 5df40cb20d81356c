"""Each test is one row of the table of faults; the run prints the table, and writes it with ``--faults-table=FILE``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from search.records.trial import TrialRecord
from search.study import store
from tests.faults.closed_form import calls
from tests.search.study.postgresql import postgresql as postgresql

ROOT = Path(__file__).parents[2]
ROW = "paretune_row"
LAST = 41
"""The number of the last row."""

PAGE = """# Faults

`make faults` makes this page. Every row is a test that injects the fault ([running long studies](../operations.md)).

{kept} of {count} promises kept.

{table}
"""

WORDS = (
    "experiment=ci_tiny", "device=cpu", "study_name=faulty", "sampler=exhaustive", "tracker=none", "confirm=false",
    "space.pruning.ratio=[0.0,0.5]", "space.quantization.bits=[16,8,4]", "space.workload.batch_size=[1,4]",
    "n_trials=12",
)  # fmt: skip
"""A study of twelve cells."""


@dataclass
class Study:
    """A study over the closed form in a folder of its own; ``storage``: its store."""

    home: Path
    storage: str
    words: Sequence[str] = WORDS
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def plan(self, seconds: float = 0.0, **faults: Sequence[str]) -> Study:
        """Say how long a trial takes, and which cells meet which faults in their first tries."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "plan.json").write_text(json.dumps({"seconds": seconds, "faults": faults}))
        return self

    def start(self, *more: str, verb: str = "run", **environment: str) -> subprocess.Popen[str]:
        """Start the command in a process group of its own."""
        words = (*self.words, *more) if verb == "run" else more
        command = [sys.executable, "-m", "tests.faults.driver", str(self.home), verb, *words, f"home={self.home}"]
        if self.storage:
            command.append(f"storage={self.storage}")
        process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *more: str, **how: Any) -> Ended:
        """Run the command to its end."""
        return ended(self.start(*more, **how))

    @property
    def url(self) -> str:
        return self.storage or f"sqlite:///{self.home / 'studies.db'}"

    def trials(self, name: str = "faulty") -> list[optuna.trial.FrozenTrial]:
        storage = optuna.storages.RDBStorage(self.url.replace("postgresql://", "postgresql+psycopg://"))
        try:
            return optuna.load_study(study_name=name, storage=storage).trials
        finally:
            storage.engine.dispose()

    def records(self, name: str = "faulty") -> list[TrialRecord]:
        found = [store.saved_record(trial) for trial in self.trials(name)]
        return [record for record in found if record is not None]

    def measured(self) -> list[str]:
        """Return the cells that were measured to the end, as ``0.5/8/1``, in order."""
        return [line[0] for line in calls(self.home) if line[1] == "done"]

    def begun(self) -> list[str]:
        """Return the cells whose measuring began."""
        return [line[0] for line in calls(self.home) if line[1] != "done"]

    def wait_for(self, happened: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until something happened."""
        ends = time.monotonic() + seconds
        while not (found := happened()):
            assert time.monotonic() < ends, f"nothing happened in {seconds:g} s: {self.told()}"
            time.sleep(0.02)
        return found

    def told(self) -> list[str]:
        """Return what processes that ended have said."""
        return [process.communicate()[1][-500:] for process in self.started if process.poll() is not None]

    def require_whole(self, count: int = 12) -> None:
        """Require that each of ``count`` cells was measured and stored once, and that nothing is left running."""
        states = [trial.state.name for trial in self.trials()]
        assert "RUNNING" not in states
        complete = [record for record in self.records() if record.state == "complete"]
        cells = {tuple(record.params.values()) for record in complete}
        assert len(complete) == len(cells) == count, states


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    def require_one_line(self) -> str:
        """Return the last line of the errors; there is no traceback."""
        assert "Traceback" not in self.err + self.out, self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("paretune: "), self.err
        return last


def ended(process: subprocess.Popen[str], seconds: float = 120.0) -> Ended:
    """Wait for a command."""
    out, err = process.communicate(timeout=seconds)
    return Ended(process.returncode, out, err)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """A study that nothing has happened to yet; what it started is killed at the end."""
    study = Study(tmp_path / "home", "").plan()
    yield study
    for process in study.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# ---- the table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", default=None, help="write the table of faults to this file")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[misc]
    row = item.get_closest_marker("row")
    if row is not None:
        report.user_properties.append((ROW, json.dumps(row.args)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = _rows(terminalreporter.stats)
    if not rows:
        return
    kept = sum(row[3] == "kept" for row in rows.values())
    lines = ["| # | fault | promise | this run | s |", "|---|---|---|---|---|"]
    lines += [f"| {number} | {' | '.join(map(str, row[1:]))} |" for number, row in sorted(rows.items())]
    missing = sorted(set(range(1, LAST + 1)) - rows.keys())
    terminalreporter.write_line(f"{kept} of {len(rows)} promises kept{f', not run: {missing}' if missing else ''}")
    file = config.getoption("--faults-table")
    if file and not missing:
        Path(file).write_text(PAGE.format(kept=kept, count=len(rows), table="\n".join(lines)), encoding="utf-8")


def _rows(stats: Mapping[str, Sequence[Any]]) -> dict[int, tuple[Any, ...]]:
    """Return the rows by number; one with several cases is kept where all are."""
    rows: dict[int, tuple[Any, ...]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in stats.get(outcome, ()):
            given = dict(getattr(report, "user_properties", ())).get(ROW)
            if given is None or (outcome == "passed" and report.when != "call"):
                continue
            number, fault, promise = json.loads(given)
            before = rows.get(number)
            said = {"passed": "kept", "skipped": "not run"}.get(outcome, "**broken**")
            worst = said if before is None or before[3] == "kept" else before[3]
            seconds = round(report.duration + (before[4] if before else 0.0), 1)
            rows[number] = (number, fault, promise, worst, seconds)
    return rows


def left_of(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return which processes still run after so many seconds; one that nobody has asked how it ended runs no more."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
