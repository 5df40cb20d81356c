"""A spawned process does not run the script again that started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from {module} import {context}
print("the script runs", flush=True)
process = {context}({argument}).Process(target=print, args=("the process runs",))
process.start()
process.join()
print(__file__ is not None, __spec__, process.exitcode)
"""


def run(folder: Path, **names: str) -> list[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(**names), encoding="utf-8")
    command = [sys.executable, str(script)]
    root = str(Path(__file__).parents[3])
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": root}, timeout=60)
    return done.stdout.splitlines()


def test_a_script_without_a_guard_may_start_one(tmp_path: Path) -> None:
    said = run(tmp_path, module="search.executors.scriptless", context="ScriptlessContext", argument="")
    assert said == ["the script runs", "the process runs", "True None 0"]


def test_elsewhere_such_a_script_runs_again_and_fails(tmp_path: Path) -> None:
    said = run(tmp_path, module="multiprocessing", context="get_context", argument='"spawn"')
    assert said == ["the script runs", "the script runs", "True None 1"]


def test_the_start_method_of_a_program_is_its_own_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    from search.executors.worker import WorkerSession

    before = multiprocessing.get_start_method(allow_none=True)
    session = WorkerSession(None, 1.0)  # type: ignore[arg-type]
    with session:
        assert multiprocessing.get_start_method() == "spawn"
    assert multiprocessing.get_start_method(allow_none=True) == before
