"""A store tells what it holds, and a study travels as one file and goes on elsewhere."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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


@pytest.fixture
def exported(config: StudyConfig, tmp_path: Path) -> Path:
    """The file of the study."""
    file = tmp_path / "first.study.gz"
    assert main(["studies", "export", *place(config), f"file={file}"]) == 0
    return file


def rewritten(file: Path, change: Callable[[Any], object]) -> None:
    """Let ``change`` work on what the file holds."""
    content = json.loads(gzip.decompress(file.read_bytes()))
    change(content)
    file.write_bytes(gzip.compress(json.dumps(content).encode()))


def refused(file: Path, home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which an import is refused, which leaves nothing."""
    capsys.readouterr()
    assert main(["studies", "import", f"file={file}", f"home={home}", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not home.exists()
    return said


def records_in(content: Any) -> list[Any]:
    return [trial["attributes"][store.RECORD] for trial in content["trials"]]


@pytest.mark.parametrize("bad", ["flipped", "deep", "text"])
def test_a_file_whose_bytes_are_damaged_is_refused_in_one_line(
    exported: Path, tmp_path: Path, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = exported.read_bytes()
    middle = slice(len(data) // 2, len(data) // 2 + 40)
    flipped = data[: middle.start] + bytes(byte ^ 0xFF for byte in data[middle]) + data[middle.stop :]
    exported.write_bytes({"flipped": flipped, "deep": gzip.compress(b"[" * 200_000), "text": gzip.compress(b"3")}[bad])
    assert "is no study that paretune exported" in refused(exported, tmp_path / "new", capsys)


CHANGES: dict[str, Callable[[Any], object]] = {
    "direction": lambda content: content.update(directions=["UP"]),
    "no directions": lambda content: content.update(directions=[]),
    "directions of no list": lambda content: content.update(directions=5),
    "too many directions": lambda content: content["directions"].append("MINIMIZE"),
    "metric names": lambda content: content.update(metric_names=["one"]),
    "metric names of no text": lambda content: content.update(metric_names=[1] * len(content["directions"])),
    "record": lambda content: content["trials"][1]["attributes"].update(record={"foo": 1}),
    "key of a record": lambda content: records_in(content)[1].update(foo=1),
    "metric": lambda content: records_in(content)[1].update(metrics={"accuracy": "high"}),
    "state": lambda content: records_in(content)[1].update(state="fine"),
    "samples": lambda content: content["trials"][1]["attributes"].update(samples=7),
    "settings": lambda content: content["attributes"].update(config={}),
    "settings of no dict": lambda content: content["attributes"].update(config=["a"]),
    "part of the settings": lambda content: content["attributes"]["config"].pop("project"),
    "confirmation": lambda content: content["attributes"].update(confirmation={"dropped": {"x": 1}}),
    "machine": lambda content: content["attributes"].update(machine=[1]),
    "attributes": lambda content: content.update(attributes=[]),
    "trials": lambda content: content.update(trials={"a": 1}),
    "time": lambda content: content["trials"][0].update(began="yesterday"),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_file_with_an_odd_part_is_refused_before_anything_is_made(
    exported: Path, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(exported, CHANGES[part])
    assert f"file: {exported} is damaged (" in refused(exported, tmp_path / "new", capsys)


def test_a_folder_is_no_file_to_export_to(config: StudyConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "export", *place(config), "file=/"]) == 2
    assert "got the folder /" in capsys.readouterr().err


def test_a_study_that_nobody_can_read_costs_the_list_only_its_front(
    config: StudyConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = optuna.create_study(study_name="odd", storage=config.storage, directions=["minimize"])
    odd.set_user_attr(store.CONFIG, {"space": 3})
    odd.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={store.RECORD: {"foo": 1}}))
    assert main(["studies", *place(config)]) == 0
    rows = {line.split("│")[1].strip(): line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert rows["odd"][5].strip() == "-"
    assert int(rows["first"][5]) > 0


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", ".hidden", "", 3, None, "a\n", "a" * 256])
def test_a_name_that_a_run_would_refuse_is_refused(
    exported: Path, tmp_path: Path, name: object, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(exported, lambda content: content.update(name=name))
    assert "give another, as study=imported" in refused(exported, tmp_path / "new", capsys)
    assert main(["studies", "import", f"file={exported}", f"home={tmp_path / 'new'}", "study=imported"]) == 0


def test_a_name_that_is_asked_for_is_held_to_the_same_rule(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected a name" in refused(exported, tmp_path / "new", capsys, "study=../escaped")


def of_everybody(content: Any) -> None:
    """Take the uid that a search by LIKE finds in every study."""
    content["attributes"][store.UID] = "%"
    for record in records_in(content):
        record["uid"] = f"%:{record['number']}"


UIDS: dict[str, Callable[[Any], object]] = {
    "of everybody": of_everybody,
    "none": lambda content: content["attributes"].pop(store.UID),
    "a number": lambda content: content["attributes"].update(uid=7),
    "of another study": lambda content: records_in(content)[1].update(uid="4dbf8b8e-1f3b-4e4e-b9d5-5a1f2b3c4d5e:1"),
    "of another trial": lambda content: records_in(content)[1].update(uid=records_in(content)[0]["uid"]),
    "of a trial twice": lambda content: records_in(content)[1].update(records_in(content)[0]),
}


@pytest.mark.parametrize("uid", UIDS)
@pytest.mark.parametrize("words", [(), ("study=second",)])
def test_uids_that_no_study_gives_are_refused(
    exported: Path, tmp_path: Path, uid: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(exported, UIDS[uid])
    assert "is damaged (" in refused(exported, tmp_path / "new", capsys, *words)
