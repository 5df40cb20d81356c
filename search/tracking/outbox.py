"""Sends a study to its tracker in a thread of its own: no trial waits for a tracker that is down, slow, full or hung.

What is sent while a trial is timed would disturb the timing. So a trial waits a moment for a tracker that answers,
which takes a twentieth of a second, and not at all for one that does not. The study store keeps everything: what was
not sent is sent at the end, or by ``paretune sync``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

from typing_extensions import override

from search.errors import ConfigError
from search.records.trial import TrialRecord
from search.terminal.plain_text import one_line
from search.tracking.protocol import Mirror, StudyEnd, StudyHeader, Tracker

log = logging.getLogger(__name__)

MOMENT = 0.5
"""Seconds that a trial waits for a tracker that answered the last time."""
OPENING = 5.0
"""Seconds that a study waits for its tracker after its model was loaded, and for one that failed at the end."""
EACH, MOST = 0.5, 60.0
"""Seconds more that the end waits for every trial, where the tracker has answered so far, and for all together."""
PAUSE = 30.0
"""Seconds in which nothing is sent to a tracker that failed."""

_Task = tuple[Callable[[Mirror], Any], "Future[Any]"]


class Outbox(Mirror):
    """The mirror of one study in ``tracker``, served by a thread. A failure costs one warning, and never the study."""

    def __init__(self, tracker: Tracker, header: StudyHeader) -> None:
        self._tracker, self._header = tracker, header
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._last: Future[Any] = Future()
        self._mirror: Mirror | None = None
        self._failed_at: float | None = None
        self._warned = False
        self._sent: set[str] = set()
        self._thread = Thread(target=self._serve, name="tracker", daemon=True)
        self._thread.start()
        self._opened = self._put(lambda _mirror: None)

    def ready(self) -> None:
        """Wait a few seconds until the tracker is open. Raises ConfigError for settings that it refuses."""
        self._waited(self._opened, OPENING)
        if self._opened.done() and (error := self._opened.exception()) is not None:
            raise error

    @override
    def log(self, record: TrialRecord) -> None:
        is_idle = self._last.done()
        sent = self._put(lambda mirror: self._log(mirror, record))
        if is_idle and self._failed_at is None:
            self._waited(sent, MOMENT)

    def _log(self, mirror: Mirror, record: TrialRecord) -> None:
        mirror.log(record)
        self._sent.add(record.uid)

    @override
    def close(self, result: StudyEnd) -> str:
        """Send what is missing and the summary, as far as the tracker answers; return a line for the user."""
        patience = OPENING if self._failed_at is not None else OPENING + min(MOST, EACH * len(result.records))
        self._failed_at = None  # one more try
        line = self._waited(self._put(lambda mirror: mirror.close(result)), patience)
        self.stop()
        if line is not None:
            return str(line)
        self._warn("no answer")
        missing = sum(record.uid not in self._sent for record in result.records)
        how = f"paretune sync study={self._header.name}"
        return f"{missing} trials and the summary were not sent to the tracker; {how} sends them"

    def stop(self) -> None:
        """Let the thread end after what it does now."""
        self._tasks.put(None)

    def _put(self, task: Callable[[Mirror], Any]) -> Future[Any]:
        self._last = Future()
        self._tasks.put((task, self._last))
        return self._last

    @staticmethod
    def _waited(answer: Future[Any], seconds: float) -> Any:
        """Return the answer; None where it failed, or did not come in time."""
        try:
            return answer.result(timeout=seconds)
        except (TimeoutError, ConfigError):
            return None

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            action, answer = task
            try:
                answer.set_result(self._tried(action))
            except ConfigError as error:
                answer.set_exception(error)

    def _tried(self, action: Callable[[Mirror], Any]) -> Any:
        if self._failed_at is not None and time.monotonic() - self._failed_at < PAUSE:
            return None
        try:
            if self._mirror is None:
                self._mirror = self._tracker.open(self._header)
            done = action(self._mirror)
        except ConfigError:
            raise
        except BaseException as error:  # a tracker that exits ends no study, and not this thread either
            self._mirror = None  # opened anew, it reads what really arrived
            self._failed_at = time.monotonic()
            self._warn(_told(error))
            return None
        self._failed_at = None
        return done

    def _warn(self, why: str) -> None:
        if not self._warned:
            log.warning("the tracker failed: %s (the study goes on; its store keeps everything)", one_line(why))
        self._warned = True


def _told(error: BaseException) -> str:
    """Return the class and message of an error; the class alone where it has no message, or fails to give one."""
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:
        return type(error).__name__
