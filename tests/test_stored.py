"""What earlier versions wrote: a study, two winners and a cached model, all made by commit decccce (2026-11-28).

``tests/stored`` holds a small Llama, its texts, the study over them as SQL, and what that version said of each:
the fronts at several floors, the answers of the models, the names of studies. Nothing of it is ever made again.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from objectives.measuring.fingerprint import KIND
from search.cli import main
from search.study import store

STORED = Path(__file__).parent / "stored"
STUDY = "stored-e9ef48b2"
SAME_STUDY = (
    "experiment=ci_tiny", "project=stored", "model=causal_lm", "model.path=model", "task=language_modeling",
    "task.corpus._target_=fixture_texts.StoredTexts", "allow_targets=[fixture_texts]", "task.documents=8",
    "task.tokens=96", "task.calibration_documents=8", "space.pruning.ratio=[0.0,0.5]",
    "space.quantization.bits=[16,8,4]", "space.workload.batch_size=[1,4]",
    "space.runtime.name=[torch,onnxruntime]", "accuracy_floor.epsilon=0.8",
)  # fmt: skip
"""The settings of the study, as its user wrote them."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory as that user left it, with the study in ``mlruns``."""
    for name in ("model", "texts.jsonl", "fixture_texts.py"):
        copy = shutil.copytree if (STORED / name).is_dir() else shutil.copy
        copy(STORED / name, tmp_path / name)
    (tmp_path / "mlruns").mkdir()
    text = gzip.decompress((STORED / "studies.sql.gz").read_bytes()).decode().replace("/stored", str(tmp_path))
    with sqlite3.connect(tmp_path / "mlruns" / "studies.db") as database:
        database.executescript(text)
    database.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fixture_texts", raising=False)  # it reads what lies beside it
    return tmp_path


def of_any_device(database: Path) -> None:
    """Forget on what the stored study was measured: another kind of device than this one would be refused."""
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{database}")
    kept = {name: fact for name, fact in study.user_attrs[store.MACHINE].items() if name not in KIND}
    study.set_user_attr(store.MACHINE, kept)


def front_of(file: Path) -> dict[str, Any]:
    """Return what ``pareto.json`` says, in the form of ``fronts.json``."""
    found = json.loads(file.read_text())
    kept = (*found["objectives"], "accuracy")
    points = [
        {"trial": each["trial"], "metrics": {name: each["metrics"][name] for name in kept}} for each in found["front"]
    ]
    names = ("objectives", "floor", "recommended", "hypervolume", "feasible")
    return {"epsilon": found["study"]["epsilon"], **{name: found[name] for name in names}, "front": points}


@pytest.mark.parametrize("front", json.loads((STORED / "fronts.json").read_text()), ids=lambda one: one["floor"])
def test_a_study_of_that_version_is_cut_to_the_same_front_at_every_floor(home: Path, front: dict[str, Any]) -> None:
    objectives = f"objectives=[{','.join(front['objectives'])}]"
    assert main(["report", f"accuracy_floor.epsilon={front['epsilon']}", objectives, "folder=cut"]) == 0
    assert front_of(home / "cut" / "pareto.json") == front


def test_a_study_of_that_version_resumes_under_the_same_name(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["paretune"])
    of_any_device(home / "mlruns" / "studies.db")
    more = ("n_trials=8", "executor=in_process", "tracker=none", "confirm=false")
    assert main(["run", *SAME_STUDY, *more]) == 0
    assert "resuming after 7 trials" in capsys.readouterr().err
    found = json.loads((home / "mlruns" / "reports" / STUDY / "pareto.json").read_text())
    assert found["trials"] == 8


@pytest.mark.parametrize("name", ["winner_torch", "winner_engine", "cache_entry"])
def test_a_model_of_that_version_loads_and_answers_as_it_did(name: str) -> None:
    import torch

    import objectives
    from objectives.export import checkpoint
    from objectives.runtime.in_torch.runner import TorchRunner

    if name == "winner_engine":
        pytest.importorskip("onnxruntime")
    folder = STORED / name
    model = TorchRunner(checkpoint.load(folder)) if name == "cache_entry" else objectives.load(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with np.load(STORED / "answers.npz") as answers:
            ids, out = torch.from_numpy(answers["ids"]), torch.zeros((2, 6), dtype=torch.int64)
            model.generate(ids, out)
            logits = model.logits(ids).float().numpy()[:, -2:]
            assert (out.numpy() == answers[f"{name}.tokens"]).all()
            if torch.cpu._is_amx_tile_supported():  # the kernels that it answered with
                assert (logits == answers[f"{name}.logits"]).all()
            np.testing.assert_allclose(logits, answers[f"{name}.logits"], atol=0.05)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("words", "name"), json.loads((STORED / "names.json").read_text()).items())
def test_a_study_keeps_its_name(words: str, name: str) -> None:
    from hydra import compose, initialize_config_dir

    from search.commands.run import CONF, plain
    from search.config.study_config import build_config

    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert build_config(plain(compose("config", overrides=words.split()))).name == name
