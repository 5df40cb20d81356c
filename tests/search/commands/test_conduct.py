"""What a command does when a signal comes late: while the report is written, or a tracker is waited for."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.commands.run import conduct
from search.errors import Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_at_the_end_is_told_as_one_before(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.study.progress.make_progress", nullcontext)
    monkeypatch.setattr("search.study.study.run_study", lambda *_: None)
    before = signal.getsignal(number)

    def end(_result: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    config: Any = SimpleNamespace(home=tmp_path)
    with pytest.raises(Interrupted) as stopped:
        conduct(config, end)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before
