"""What libraries say goes to a log, by whatever way they say it; what we say is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.commands.run import run_job
from search.errors import BaselineFailed, ConfigError, ParetuneError, StudyConflict
from search.terminal.quiet_log import MOST, quiet_log

ROOT = Path(__file__).resolve().parents[3]

SAYING = """
import logging, os, subprocess, sys, warnings
def say(who):
    warnings.warn(f"their warning, {who}")
    logging.getLogger("torchao.utils").warning(f"their log line, {who}")
    logging.getLogger("transformers").error(f"their error, {who}")
    print(f"their print, {who}", flush=True)
    sys.stderr.write(f"their bar, {who}\\n")
    os.write(1, f"their C, {who}\\n".encode())
    os.write(2, f"their C error, {who}\\n".encode())
    logging.getLogger("search.study.study").warning(f"our warning, {who}")
    logging.getLogger("objectives.measuring").warning(f"our \\x1b[31mobjective, {who}")
"""
SCRIPT = (
    SAYING
    + """
import multiprocessing
from pathlib import Path
from search.terminal import console as terminal
from search.terminal.quiet_log import Shown, quiet_log
def work(shown):
    shown.show_messages()
    say("worker")
if __name__ == "__main__":
    terminal.prepare_streams()
    shown = terminal.warnings_shown()
    shown.__enter__()
    print("before")
    with quiet_log(Path("logs")):
        say("driver")
        process = multiprocessing.get_context("spawn").Process(target=work, args=(Shown(),))
        process.start()
        process.join()
        subprocess.run(["sh", "-c", "echo their child; echo their child >&2"])
        print("our result", file=terminal.out())
        print("our progress", file=terminal.err())
        terminal.console().print("our table")
    print("after")
    if "fail" in sys.argv:
        with quiet_log(Path("logs")):
            raise RuntimeError("a bug of ours")
"""
)


def run(folder: Path, redirection: str = "", *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} script.py {' '.join(words)} {redirection}"
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def test_nothing_of_theirs_is_shown_and_nothing_of_ours_is_lost(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "their" not in done.stdout + done.stderr
    assert done.stdout.splitlines() == ["before", "our result", "our table", "after"]
    for who in ("driver", "worker"):
        assert f"WARNING our warning, {who}" in done.stderr
        assert rf"our \x1b[31mobjective, {who}" in done.stderr
    assert "our progress" in done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    text = log.read_text(encoding="utf-8")
    for kind in (
        "their warning",
        "their log line",
        "their error",
        "their print",
        "their bar",
        "their C",
        "their C error",
    ):
        for who in ("driver", "worker"):
            assert f"{kind}, {who}" in text, (kind, who)
    assert text.count("their child") == 2
    assert "our result" not in text


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true"])
def test_a_terminal_that_takes_nothing_ends_nothing(redirection: str, tmp_path: Path) -> None:
    done = run(tmp_path, redirection)
    assert "Traceback" not in done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    assert "their C error, worker" in log.read_text(encoding="utf-8")


def test_a_bug_still_shows_its_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "", "fail")
    assert done.returncode == 1
    assert "a bug of ours" in done.stderr
    assert "Traceback" in done.stderr


def test_logs_are_bounded_and_empty_ones_do_not_stay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for index in range(MOST + 5):
        (tmp_path / f"2000-01-01-{index:03}.log").write_text("old", encoding="utf-8")
    with quiet_log(tmp_path):
        os.write(2, b"said\n")
    with quiet_log(tmp_path):
        pass
    names = sorted(path.name for path in tmp_path.iterdir())
    assert MOST - 1 <= len(names) <= MOST
    assert (tmp_path / names[-1]).read_text(encoding="utf-8") == "said\n"
    os.write(2, b"shown again\n")
    assert capfd.readouterr().err == "shown again\n"


def test_where_no_log_can_be_written_they_are_quiet_all_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with quiet_log(tmp_path / "file" / "logs"):
        os.write(1, b"said\n")
    assert capfd.readouterr().out == ""


def test_an_exception_leaves_no_empty_log(tmp_path: Path) -> None:
    with pytest.raises(KeyError), quiet_log(tmp_path / "logs"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_an_exception_keeps_a_log_that_says_something(tmp_path: Path) -> None:
    def fail() -> None:
        with quiet_log(tmp_path / "logs"):
            os.write(1, b"why")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.read_bytes() for path in (tmp_path / "logs").iterdir()] == [b"why"]


@pytest.mark.parametrize("error", [ConfigError("no"), StudyConflict("no"), BaselineFailed("no", 5)], ids=repr)
def test_of_a_refused_study_no_log_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ParetuneError) -> None:
    def refuse(*_: object) -> None:
        print("what libraries say")
        raise error

    monkeypatch.setattr("search.study.preflight.preflighted", lambda config: config)
    monkeypatch.setattr("search.config.study_config.build_config", lambda *_: SimpleNamespace(home=tmp_path))
    monkeypatch.setattr("search.study.progress.make_progress", lambda _: nullcontext())
    monkeypatch.setattr("search.study.study.run_study", refuse)
    with pytest.raises(type(error)):
        run_job({}, "")
    assert (tmp_path / "logs").exists() == isinstance(error, BaselineFailed)
