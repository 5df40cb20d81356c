"""Shows how far a running study is: a live bar in a terminal, one plain line per trial elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from typing_extensions import override

from objectives.tasks.progress import SoFar
from search.config.study_config import StudyConfig
from search.front.asked import accuracies_of, named
from search.front.feasibility import is_scored
from search.front.front import ParetoFront
from search.records.trial import TrialRecord
from search.records.tries import Tries
from search.terminal.console import console, err
from search.terminal.plain_text import one_line

BESIDE = 22
"""Columns beside the text, without the numbers of trials: the bar gives way to the text, down to these."""
QUIET, EVERY = 5.0, 30.0
"""Seconds of scoring after which the time left is told, and between two lines that are no terminal's."""


class Progress(Protocol):
    """Shows how far a running study is."""

    def stage(self, text: str) -> None:
        """Show what the study does now."""

    def scoring(self, far: SoFar | None) -> None:
        """Show how far the scoring of a model is; None where none is scored any more."""

    def trial(self, records: Sequence[TrialRecord], front: ParetoFront) -> None:
        """Show the trial that finished last, and the state of the study with it."""


@contextmanager
def make_progress(config: StudyConfig) -> Iterator[Progress]:
    """Yield a live bar in a terminal, plain lines elsewhere."""
    shown = console(stderr=True)
    if not shown.is_terminal or shown.is_dumb_terminal:
        yield PlainProgress(config)
        return
    columns = (
        SpinnerColumn("dots" if shown.encoding.startswith("utf") else "line"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
    )
    with RichProgress(
        *columns, TimeElapsedColumn(), console=shown, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        yield LiveProgress(config, bar)


def status(records: Sequence[TrialRecord], front: ParetoFront, clock: Clock) -> str:
    """Format the size of the front, the best feasible speed-up, the failures and the time left."""
    measured = {record.number: record for record in records}
    speedups = [measured[number].metrics.get("speedup", 0.0) for number in front.feasible if number in measured]
    failed = sum(record.state == "failed" for record in records)
    parts = [f"{len(front.front)} on the front"]
    if speedups:
        parts.append(f"best feasible speed-up {max(speedups):.2f}x")
    if failed:
        parts.append(f"failed {failed}")
    left = clock.left(clock.spent(records))
    if left is not None:
        parts.append(f"about {_duration(left)} left")
    return ", ".join(parts)


class Clock:
    """Counts trials, and estimates the time left from those that this run measured; the first is left out."""

    def __init__(self, n_trials: int) -> None:
        self.n_trials = n_trials
        self.first: tuple[int, float] | None = None
        self._tries, self._seen = Tries(), 0

    def spent(self, records: Sequence[TrialRecord]) -> int:
        """Return how many of ``records`` count towards ``n_trials``; those that were counted before are not read."""
        for record in records[self._seen :]:
            self._tries.add(record)
        self._seen = len(records)
        return self._tries.spent

    def left(self, done: int) -> float | None:
        """Return the seconds until ``n_trials`` are done, or None while unknown."""
        now = time.monotonic()
        if self.first is None:
            self.first = (done, now)
            return None
        trials, since = self.first
        return (now - since) / max(1, done - trials) * max(0, self.n_trials - done) if done > trials else None


def sentence(far: SoFar) -> str:
    """Return how far the scoring of a model is, and after a few seconds how long it will take at the rate so far."""
    if not far.total:
        read = f", {far.done:,.0f} texts read" if far.done else ""
        return f"scoring for {_duration(far.seconds)}{read}"
    text = f"scoring {int(far.done):,} of {far.total:,}{' domains' if far.domains else ''}"
    if far.seconds < QUIET or not far.done:
        return text
    left = _duration(far.seconds * (far.total - far.done) / far.done)
    return f"{text}, {'at most' if far.may_end_early else 'about'} {left} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class PlainProgress(Progress):
    """Lines on stderr, for logs."""

    def __init__(self, config: StudyConfig) -> None:
        self.config, self.clock = config, Clock(config.limits.n_trials)
        self._begun = False
        self._scoring_said = -math.inf

    @override
    def stage(self, text: str) -> None:
        if not self._begun:  # what is refused before has one line of its own
            self._say(f"study {self.config.name}: {len(self.config.space)} cells, {self.config.limits.n_trials} trials")
            self._begun = True
        if "=" not in text:  # only the slow steps of the set-up are worth a line, no cell is
            self._say(text)

    @override
    def scoring(self, far: SoFar | None) -> None:
        now = time.monotonic()
        if far is not None and far.seconds >= EVERY and now - self._scoring_said >= EVERY:
            self._scoring_said = now
            self._say(sentence(far))

    @override
    def trial(self, records: Sequence[TrialRecord], front: ParetoFront) -> None:
        done = f"[{self.clock.spent(records)}/{self.config.limits.n_trials}]"
        self._say(f"{done} {_last(records[-1])}; {status(records, front, self.clock)}")

    @staticmethod
    def _say(line: str) -> None:
        print(one_line(line), file=err(), flush=True)


class LiveProgress(Progress):
    """A bar in the terminal, beside it the stage of the study."""

    def __init__(self, config: StudyConfig, bar: RichProgress) -> None:
        self.bar, self.clock = bar, Clock(config.limits.n_trials)
        self.name = self._stage = escape(config.name)
        self.beside = BESIDE + 2 * len(str(config.limits.n_trials))
        self.row = bar.add_task(self.name, total=config.limits.n_trials)

    @override
    def stage(self, text: str) -> None:
        self._stage = f"{self.name}: {escape(one_line(text))}"
        self.bar.update(self.row, description=self._stage)

    @override
    def scoring(self, far: SoFar | None) -> None:
        """Show it in place of the stage, after the study's name where there is room for both."""
        text = self._stage
        if far is not None:
            text = f"{self.name}: {sentence(far)}"
            text = text if len(text) <= self.bar.console.width - self.beside else sentence(far)
        self.bar.update(self.row, description=text)

    @override
    def trial(self, records: Sequence[TrialRecord], front: ParetoFront) -> None:
        self.bar.console.print(escape(one_line(_last(records[-1]))), highlight=False)
        text = f"{self.name}: {escape(status(records, front, self.clock))}"
        self.bar.update(self.row, completed=self.clock.spent(records), description=text)


def _last(record: TrialRecord) -> str:
    names = {path: path.rpartition(".")[2] for path in record.params}
    twice = {path for path, name in names.items() if list(names.values()).count(name) > 1}
    cell = " ".join(f"{path if path in twice else names[path]}={value}" for path, value in record.params.items())
    if record.state == "failed":
        return f"trial {record.number} {cell}: failed, {record.reason}: {record.message}"
    metrics = record.metrics
    known = f"as trial {record.cached_from}" if record.cached_from is not None else f"{record.seconds:.0f} s"
    gains = "below the floor, not timed" if record.facts.is_missed else "simulated"
    if "speedup" in metrics:
        gains = f"speed-up {metrics['speedup']:.2f}x, memory {metrics['memory_ratio']:.2f}x"
    scores = accuracies_of(metrics)
    accuracy = "accuracy " + ", ".join(named(task, f"{value:.3f}") for task, value in scores.items())
    accuracy = accuracy if is_scored(record) else "dominated, not scored"
    return f"trial {record.number} {cell}: {accuracy}, {gains} ({known})"
