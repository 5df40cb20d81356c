"""A store tells what it holds, and a study travels as one file and goes on elsewhere."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from search.cli import main
from search.config.study_config import StudyConfig
from search.study import store
from search.study.lease import Lease
from search.study.opening import connected, open_study
from search.study.study import run_study
from tests.search.conftest import FakeExecutor, Quiet


@pytest.fixture
def config(make_config: Callable[..., StudyConfig]) -> StudyConfig:
    """A study of four trials that was run."""
    config = make_config("n_trials=4", "sampler=exhaustive", "study_name=first")
    run_study(config, Quiet())
    return config


def place(config: StudyConfig) -> list[str]:
    return [f"home={config.home}", f"storage={config.storage}"]


def stored(config: StudyConfig, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_study(config, config.sampler)._storage)


def test_a_store_lists_its_studies(config: StudyConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", *place(config)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "first" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["first", "budget", "4", "0"]
    with connected(config) as storage, Lease(storage, config.name).held():
        assert main(["studies", *place(config)]) == 0
    assert "running" in capsys.readouterr().out


def test_a_study_travels_as_one_file_and_goes_on(
    config: StudyConfig, make_config: Callable[..., StudyConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "first.study.gz"
    assert main(["studies", "export", *place(config), f"file={file}"]) == 0
    elsewhere = [f"home={tmp_path / 'elsewhere'}"]
    assert main(["studies", "import", *elsewhere, f"file={file}"]) == 0
    original, copy = (
        stored(config, "first"),
        optuna.load_study(study_name="first", storage=f"sqlite:///{tmp_path / 'elsewhere' / 'studies.db'}"),
    )
    settings = {**original.user_attrs[store.CONFIG], "allow_targets": []}
    assert copy.user_attrs == {**original.user_attrs, store.CONFIG: settings}
    assert copy.directions == original.directions
    for one, other in zip(original.trials, copy.trials, strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
        assert (one.user_attrs, one.constraints) == (other.user_attrs, other.constraints)
        assert (one.datetime_start, one.datetime_complete) == (other.datetime_start, other.datetime_complete)
    again = make_config("n_trials=6", "sampler=exhaustive", "study_name=first", *elsewhere)
    executor = FakeExecutor()
    result = run_study(replace(again, executor=executor), Quiet())
    assert len(result.records) == 6
    assert len(executor.asked) == 2
    assert main(["studies", "import", *elsewhere, f"file={file}"]) == 2
    assert "give it another name" in capsys.readouterr().err


def test_under_another_name_it_is_another_study(config: StudyConfig, tmp_path: Path) -> None:
    file = tmp_path / "first.study.gz"
    main(["studies", "export", *place(config), "study=first", f"file={file}"])
    assert main(["studies", "import", *place(config), f"file={file}", "study=second"]) == 0
    one, other = stored(config, "first"), stored(config, "second")
    assert one.user_attrs[store.UID] != other.user_attrs[store.UID]
    uids = {record.uid for study in (one, other) for record in store.records_of(study)}
    assert len(uids) == 8


@pytest.mark.parametrize("cut", [0, 40, -3])
def test_a_file_that_is_torn_or_something_else_is_refused_and_leaves_nothing(
    config: StudyConfig, tmp_path: Path, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "first.study.gz"
    main(["studies", "export", *place(config), f"file={file}"])
    file.write_bytes(file.read_bytes()[:cut] if cut else b"text")
    assert main(["studies", "import", *place(config), f"file={file}", "study=second"]) == 2
    assert f"file: {file} is no study" in capsys.readouterr().err
    assert len(optuna.get_all_study_summaries(config.storage)) == 1


def test_words_that_it_does_not_know_are_refused(config: StudyConfig, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["exprot"], "did you mean export?"),
        (["list", "a=1"], "unknown key a"),
        (["import"], "file: "),
    ):
        assert main(["studies", *words, *place(config)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("lacks", ["trials", "attributes", "directions"])
def test_a_file_that_lacks_a_part_is_refused_and_leaves_nothing(
    config: StudyConfig, tmp_path: Path, lacks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "first.study.gz"
    main(["studies", "export", *place(config), f"file={file}"])
    content = json.loads(gzip.decompress(file.read_bytes()))
    del content[lacks]
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert main(["studies", "import", *place(config), f"file={file}", "study=second"]) == 2
    assert f"file: {file} is " in capsys.readouterr().err
    assert len(optuna.get_all_study_summaries(config.storage)) == 1


def test_an_imported_study_admits_no_modules_itself(
    config: StudyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'target')!r}, 'w')\nclass Task: pass\n")
    file = tmp_path / "first.study.gz"
    main(["studies", "export", *place(config), f"file={file}"])
    content = json.loads(gzip.decompress(file.read_bytes()))
    stored = content["attributes"][store.CONFIG]
    stored["allow_targets"], stored["task"] = ["evil"], {"_target_": "evil.Task"}
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert main(["studies", "import", *place(config), f"file={file}", "study=sent"]) == 0
    for words in (["studies"], ["report", "study=sent"], ["best", "study=sent"]):
        main([*words, *place(config)])
    assert not (tmp_path / "target").exists()
    assert "allow_targets" in capsys.readouterr().err
