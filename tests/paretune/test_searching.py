"""Real studies from Python: one over the small model of ``tests/stored``, with rows that are in memory."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

import paretune
from paretune import ConfigError, Interrupted, Study
from search.cli import main
from search.executors.in_process import InProcessSession

ROOT = Path(__file__).parents[2]
STORED = ROOT / "tests" / "stored"
SETTINGS: dict[str, Any] = {
    "task": {"kind": "text", "tokens": 64, "stride": 32, "calibration_tokens": 64},
    "floor": 0.3,
    "accuracy_floor": "absolute",
    "space": {"pruning.ratio": [0.0, 0.25], "quantization.bits": [16, 8], "workload.batch_size": [1]},
    "workload": {"prompt_tokens": 8, "new_tokens": 2},
    "timing": {"warmups": 1, "min_rounds": 3, "max_rounds": 4, "min_seconds": 0.0, "max_seconds": 0.3, "patience": 0.2},
    "device": {"kind": "cpu", "threads": 1},
    "tracker": "none",
    "confirm": False,
    "n_trials": 3,
}


def texts() -> list[dict[str, str]]:
    """Return a piece of every stored text."""
    lines = (STORED / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    return [{"text": json.loads(line)["text"][200:600]} for line in lines]


def search(**changed: Any) -> Study:
    return paretune.search(str(STORED / "model"), texts(), **{**SETTINGS, **changed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the studies of this file run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("python"))
        patch.setattr(sys, "argv", ["paretune"])
        yield Path.cwd()


def state() -> list[Any]:
    """What a study could leave behind in the process of its caller."""
    return [
        {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}, os.getcwd(),
        logging.getLogger().handlers[:], signal.getsignal(signal.SIGINT), sys.stdout, sys.stderr,
        GlobalHydra.instance().is_initialized(), multiprocessing.get_start_method(allow_none=True),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    """A study in a worker of its own, of a loaded model, that leaves the process as it was."""
    from transformers import AutoModelForCausalLM

    model, before = AutoModelForCausalLM.from_pretrained(STORED / "model"), state()
    found = paretune.search(model, texts(), **SETTINGS)
    assert state() == before
    return found


def test_a_study_of_a_loaded_model_and_rows_in_memory_has_a_front_above_the_floor(study: Study) -> None:
    assert len(study.trials) == 3
    assert (study.trials.state == "complete").all()
    assert len(study.front) >= 1
    assert (study.front.accuracy >= study.floor).all()
    assert study.floor == 0.3
    assert study.report.is_file()


def test_the_command_line_with_its_words_continues_the_same_study(
    study: Study, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *study.words, "executor=in_process"]) == 0
    said = capsys.readouterr().err
    assert f"study {study.name}" in said
    assert "resuming after 3 trials" in said
    assert [file.name for file in (folder / "mlruns" / "reports").iterdir()] == [study.name]


def test_the_command_line_gives_the_same_name_and_the_same_accuracy_elsewhere(study: Study) -> None:
    assert main(["run", *study.words, "home=other", "executor=in_process", "cache=null"]) == 0
    other = paretune.open(home="other")
    assert other.name == study.name
    cells = ["nominal_pruning_ratio", "bits", "batch_size"]
    both = study.trials.merge(other.trials, on=cells)
    assert len(both) >= 2
    assert both.accuracy_x.tolist() == both.accuracy_y.tolist()


def test_the_winner_is_loaded_and_loaded_again(study: Study, folder: Path) -> None:
    served = study.load()
    assert served.tokenizer is not None
    (kept,) = (folder / "mlruns" / "winners").iterdir()
    written = kept.stat().st_mtime_ns
    study.load()
    assert kept.stat().st_mtime_ns == written
    assert paretune.load(study.export(folder / "winner", trial=0)).tokenizer is not None


def test_the_same_call_measures_nothing_in_a_running_event_loop_and_with_a_table(study: Study) -> None:
    async def cell() -> Study:
        return paretune.search(
            next(word for word in study.words if "model.path" in word).partition("=")[2],
            pd.DataFrame(texts()), executor="in_process", **SETTINGS,
        )  # fmt: skip

    before = time.monotonic()
    again = asyncio.run(cell())
    assert again.name == study.name
    assert again.trials.seconds.tolist() == study.trials.seconds.tolist()
    assert time.monotonic() - before < 30


def test_what_is_wrong_is_raised_and_leaves_nothing_behind(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = state()
    for changed, message in (
        ({"n_trails": 3}, r"n_trails: unknown setting \(did you mean n_trials\?\)"),
        ({"timing": {"max_secs": 3}}, r"timing\.max_secs: unknown key"),
        ({"floor": "high"}, r"accuracy_floor\.epsilon: .*'high'"),
        ({"sampler": "best"}, r"sampler: no choice 'best'; choices: "),
        (
            {"task": {"kind": "text", "text": "body", "tokens": 64, "stride": 32, "calibration_tokens": 64}},
            r"task\.text: .* has no column 'body', it has text",
        ),
        ({"allow_targets": ["__main__"]}, r"allow_targets: the worker process cannot import classes of a script"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(**changed)
    assert state() == before
    assert capfd.readouterr().out == ""


def test_hydra_of_the_caller_goes_on(folder: Path) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf" / "device"), version_base="1.3"):
        with pytest.raises(ConfigError):
            search(n_trails=3)
        assert "cpu" in compose("cpu")["_target_"]


def test_an_interrupt_is_raised_after_what_was_measured_was_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = InProcessSession.evaluate
    asked: list[Any] = []

    def second_stops(self: Any, *arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) > 1:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(InProcessSession, "evaluate", second_stops)
    with pytest.raises(Interrupted, match=r"stopped by Ctrl-C; .*paretune\.open\('stopped', home='stopped'\) has"):
        search(executor="in_process", study_name="stopped", home="stopped")
    stopped = paretune.open("stopped", home="stopped")
    assert stopped.trials.state.tolist()[0] == "complete"
    assert stopped.report.is_file()


@pytest.mark.slow
def test_a_script_without_a_guard_runs_a_study_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, paretune\nprint('begins', flush=True)\n"
        f"model, settings = {str(STORED / 'model')!r}, json.load(open('settings.json'))\n"
        "study = paretune.search(model, json.load(open('texts.json')), **settings)\n"
        "print(len(study.trials), study.words[0])\n",
        encoding="utf-8",
    )
    (tmp_path / "texts.json").write_text(json.dumps(texts()), encoding="utf-8")
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["begins", "3 model=causal_lm"], done.stderr
