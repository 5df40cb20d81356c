"""Yaml files that arrive in an added folder run nothing and write nothing, and secrets reach none of Hydra's files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from search.cli import main
from search.commands.composition import config_of
from search.config import guarded_loader
from search.records import secrets
from search.records.secrets import HIDDEN
from search.terminal.plain_text import one_line

CANARY = "canary7secret"

COPIES = "{{_target_: shutil.copyfile, src: /etc/hostname, dst: {target}}}"
MAKES = "{{(): builtins.open, file: {target}, mode: w}}"
WRITES = "{{class: logging.FileHandler, filename: {target}}}"
ATTACKS = {
    "callback": f"hydra: {{{{callbacks: {{{{evil: {COPIES}}}}}}}}}",
    "launcher": f"hydra: {{{{launcher: {COPIES}}}}}",
    "sweeper": f"hydra: {{{{sweeper: {COPIES}}}}}",
    "factory": f"hydra: {{{{job_logging: {{{{handlers: {{{{evil: {MAKES}}}}}}}}}}}}}",
    "hydra_factory": f"hydra: {{{{hydra_logging: {{{{filters: {{{{evil: {MAKES}}}}}}}}}}}}}",
    "handler": f"hydra: {{{{job_logging: {{{{handlers: {{{{evil: {WRITES}}}}}, root: {{{{handlers: [evil]}}}}}}}}}}}}",
    "external": "hydra: {{job_logging: {{formatters: {{evil: {{(): logging.Formatter, fmt: 'ext://os.environ'}}}}}}}}",
    "environment": "hydra: {{job: {{env_set: {{LD_PRELOAD: {target}}}}}}}",
    "folder": "hydra: {{run: {{dir: {target}}}}}",
    "chdir": "hydra: {{job: {{chdir: true}}}}",
    "swept": "hydra: {{sweeper: {{params: {{allow_targets: '[evil]'}}}}}}\ntask: {{_target_: evil.Task}}",
    "logger": "hydra: {{job_logging: {{formatters: {{evil: {{(): logging.os.system, command: 'touch {target}'}}}}}}}}",
    "named": "hydra: {{job: {{name: ../../../../../../../../{target}}}}}",
    "cluster": "executor: {{address: '127.0.0.1:9'}}\ndefaults: [{{override /executor: ray}}]",
    "admits": "allow_targets: [evil]\ntask: {{_target_: evil.Task}}",
    "composes": "task: {{_target_: search.commands.composition.config_of, arguments: [allow_targets=[os]]}}",
    "copies": (
        "task: {{_target_: search.study.salvage._pad, file: {{_target_: search.config.overrides.absolute, "
        "path: /etc/hostname}}, whole: {{_target_: search.config.overrides.absolute, path: {target}}}}}"
    ),
    "opens": "task: {{_target_: search.study.patient_storage.PatientStorage, url: 'sqlite:///{target}'}}",
    "imported": "task: {{_target_: search.commands.run.Path, path: {target}}}",
    "nested": f"task: {{{{corpus: {COPIES}}}}}",
    "overrides": (
        "hydra: {{overrides: {{hydra: ['allow_targets=[os]']}}}}\n"
        "tracker: {{_target_: os.system, command: 'touch {target}'}}"
    ),
    "given": (
        "hydra: {{overrides: {{task: ['allow_targets=[os]']}}}}\n"
        "tracker: {{_target_: os.system, command: 'touch {target}'}}"
    ),
    "swept_cluster": (
        "hydra: {{sweeper: {{params: {{executor.address: \"'127.0.0.1:9'\"}}}}}}\n"
        "defaults: [{{override /executor: ray}}]"
    ),
    "environment_of_the_user": "project: '${{oc.env:HOME}}'",
    "environment_in_a_part": "tracker: {{uri: 'http://127.0.0.1:9/${{oc.env:HOME}}'}}",
    "environment_swept": "hydra: {{sweeper: {{params: {{+project: '${{oc.env:HOME}}'}}}}}}",
    "environment_by_another_name": "part: env\nproject: '${{oc.${{part}}:HOME}}'",
}


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[list[str], Path]]:
    """Lay the yaml of an attack into a folder, with a module that would write as well."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'target')!r}, 'w').close()\nclass Task: pass\n")

    def laid(name: str) -> tuple[list[str], Path]:
        target, folder = tmp_path / "target", tmp_path / "conf" / "experiment"
        folder.mkdir(parents=True)
        (folder / "sent.yaml").write_text("# @package _global_\n" + ATTACKS[name].format(target=target) + "\n")
        words = ["--config-dir", str(tmp_path / "conf"), "experiment=sent", "device=cpu", "tracker=none"]
        return words, target

    return laid


@pytest.mark.parametrize("verb", ["run", "plan", "run -m"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_yaml_that_was_sent_runs_and_writes_nothing(
    name: str, verb: str, attack: Callable[[str], tuple[list[str], Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    words, target = attack(name)
    assert main([*verb.split(), *words]) == 2
    assert not target.exists()
    told = capsys.readouterr().err.strip()
    assert told.startswith("paretune: ")
    assert "Traceback" not in told
    if verb != "run -m":  # Hydra begins a sweep before it looks at the jobs
        assert told.count("\n") == 0
        assert not Path("mlruns").exists()


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.evil._target_=os.getcwd",
        "hydra.launcher._target_=os.getcwd",
        "+hydra.job_logging.handlers.evil.class=os.getcwd",
    ],
)
def test_a_target_of_hydra_is_refused_on_the_command_line_too(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "experiment=ci_tiny", word]) == 2
    assert "paretune: hydra." in capsys.readouterr().err


@pytest.mark.parametrize("written", ["${oc.env:OF_THE_USER}", "${storage}"])
def test_a_secret_of_the_command_line_is_not_copied_by_a_yaml_that_was_sent(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user reads the same variable for another setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_THE_USER", f"postgresql://user:{CANARY}@127.0.0.1:1/none")
    monkeypatch.setattr("search.study.patient_storage.PAUSES", ())
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\ndefaults: [ci_tiny]\nproject: '{written}'\n"
    )
    words = ["--config-dir", str(tmp_path), "experiment=mine", "device=cpu", "storage=${oc.env:OF_THE_USER}"]
    assert main(["run", *words]) == 2
    told = capsys.readouterr()
    files = [file for file in tmp_path.rglob("*") if CANARY in file.name or CANARY in str(file)]
    files += [file for file in tmp_path.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
    assert CANARY not in told.out + told.err
    assert files == []


def test_what_a_folder_may_say_it_may_still_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [ci_tiny]\nn_trials: 3\n")
    words = ["--config-dir", str(tmp_path), "experiment=mine", "device=cpu", "hydra.job.chdir=false"]
    assert main(["plan", *words, "allow_targets=[tests.]"]) == 0
    assert "3 trials at most" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("storage: '${oc.env:OF_THE_USER}'", "n_trials=3"),
        ("project: '${oc.env:OF_THE_USER}'", "project=${oc.env:OF_THE_USER}"),
        ("project: none", "project=${oc.env:OF_THE_USER}"),
    ],
)
def test_the_environment_is_read_where_the_user_says_so(
    written: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_USER", f"sqlite:///{tmp_path}/studies.db" if "storage" in written else "mine")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\ndefaults: [ci_tiny]\n{written}\n")
    assert main(["plan", "--config-dir", str(tmp_path), "experiment=mine", "device=cpu", word]) == 0


@pytest.mark.parametrize("in_file", [False, True])
def test_a_secret_reaches_none_of_the_files_of_hydra(
    in_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"postgresql://user:{CANARY}@127.0.0.1:1/none"
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\ndefaults: [ci_tiny]\nstorage: {url}\n"
    )
    monkeypatch.chdir(tmp_path / "conf")
    for name in ("PARETUNE_STORAGE", "PARETUNE_TRACKER_URI"):
        monkeypatch.delenv(name, raising=False)
    given = ["--config-dir", ".", "experiment=mine"] if in_file else ["experiment=ci_tiny", f"storage={url}"]
    home = tmp_path / "home"
    words = ["run", *given, "device=cpu", f"home={home}", f"tracker.uri=http://user:{CANARY}@127.0.0.1:1"]
    monkeypatch.setattr("search.study.patient_storage.PAUSES", ())
    assert main([*words, "debug=false"]) == 2
    told = capsys.readouterr()
    assert CANARY not in told.out + told.err
    assert os.environ["PARETUNE_STORAGE"] == url
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.parent.name != "experiment"]
    assert [file for file in files if CANARY.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("query", ["sig", "sslpassword", "X-Amz-Signature"])
def test_a_secret_of_a_query_reaches_no_file(
    query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setattr("search.study.patient_storage.PAUSES", ())
    monkeypatch.chdir(tmp_path)
    for name in ("PARETUNE_STORAGE", "PARETUNE_TRACKER_URI"):
        monkeypatch.delenv(name, raising=False)
    urls = [f"storage='postgresql://u:1234/{CANARY}@127.0.0.1:1/none?{query}={CANARY}'"]
    urls += [f"tracker.uri='http://127.0.0.1:1/?{query}={CANARY}'"]
    assert main(["run", "experiment=ci_tiny", "device=cpu", f"home={tmp_path / 'home'}", *urls]) == 2
    told = capsys.readouterr()
    assert CANARY not in told.out + told.err
    assert [file for file in tmp_path.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()] == []


def test_the_secret_of_a_reference_is_hidden_in_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setenv("STUDIES", f"postgresql://u:{CANARY}@127.0.0.1:1/none")
    monkeypatch.setenv("TRACKER", "http://127.0.0.1:1/?sig=another7secret")
    config_of(["experiment=ci_tiny", "device=cpu", "storage=${oc.env:STUDIES}", "tracker.uri=${oc.env:TRACKER}"])
    assert one_line(f"refused {CANARY} and another7secret") == f"refused {HIDDEN} and {HIDDEN}"


def test_a_secret_takes_no_variable_that_holds_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_TRACKER_TOKEN", "of somebody else")
    monkeypatch.delenv("PARETUNE_TRACKER_TOKEN_", raising=False)
    references = {guarded_loader._reference("tracker.token", CANARY) for _ in range(2)}
    assert references == {"${oc.env:PARETUNE_TRACKER_TOKEN_}"}
    assert os.environ["PARETUNE_TRACKER_TOKEN"] == "of somebody else"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (f"tracker={{_target_: search.tracking.mlflow_tracker.MlflowTracker, token: {CANARY}}}", "within brackets"),
        (f"storage='postgresql://u:{CANARY}@${{oc.env:HOME}}/db'", "beside a reference"),
    ],
)
def test_a_secret_that_could_only_be_hidden_in_part_is_refused(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "experiment=ci_tiny", word]) == 2
    told = capsys.readouterr().err
    assert said in told
