"""Studies in folders whose names mean something to a URL, a shell, a grammar or a file system."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from search.cli import main
from search.config.study_config import StudyConfig
from search.errors import ConfigError
from search.records.storage_url import LONGEST, clean_url, redacted, sqlite_path, sqlite_url
from search.reporting.finish import finish
from search.study.opening import open_storage
from search.study.study import run_study
from search.tracking.mlflow_tracker import MlflowTracker
from tests.search.conftest import Quiet

NASTY = [
    "my%20runs", "100%", "%41", "what?", "a#b", "me@host:5432", "a&b=c+d", " two  words ", "it's \"so\"", "$HOME",
    "${x}",
    "`id`", "[v2]", "{v2}", "a\\b", "a\nb", "größe 中文 🙂", "~", "-rf", "a;b|c>d", "x,y", "a?mode=ro",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a folder of that name the working directory."""

    def enter(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        return folder

    return enter


@pytest.mark.parametrize("name", ["my%20runs a?b#c&d=e @x:y", "${x} {y} 中 'q' \"r\" \\s\n%41"])
def test_a_study_is_stored_reported_and_found_in_any_folder(
    name: str, here: Callable[[str], Path], make_config: Callable[..., StudyConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here(name)
    home = folder / "mlruns"
    config = replace(make_config("n_trials=2"), home=home, storage=sqlite_url(home / "studies.db"))
    assert finish(run_study(config, Quiet())) == 0
    assert (home / "studies.db").is_file()
    assert main(["report", "folder=out"]) == 0
    assert (folder / "out" / "report.html").is_file()
    capsys.readouterr()
    assert main(["best", f"storage=sqlite:///{home}/studies.db"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == config.name
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.parametrize("name", ["my%20runs a?b#c&d=e @x:y ${z} {y} 中 'q' \"r\" \\s\n%41"])
def test_mlflow_keeps_runs_and_files_in_any_folder(
    name: str, here: Callable[[str], Path], make_config: Callable[..., StudyConfig], caplog: pytest.LogCaptureFixture
) -> None:
    home = here(name) / "mlruns"
    config = replace(
        make_config("n_trials=2"), home=home, storage=sqlite_url(home / "studies.db"), tracker=MlflowTracker()
    )
    assert finish(run_study(config, Quiet())) == 0
    assert (home / "mlflow.db").is_file()
    assert list((home / "artifacts").glob("*/*/artifacts/report/report.html"))
    assert not caplog.records
    assert os.listdir(home.parent.parent) == [name]


@pytest.mark.parametrize("name", NASTY)
def test_a_url_that_is_built_names_the_path(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "studies.db"
    url = sqlite_url(path)
    assert make_url(url).database == str(path)
    assert sqlite_path(url) == path
    assert clean_url(url) == url


@pytest.mark.parametrize("name", NASTY)
def test_a_path_pasted_into_a_url_is_taken_literally_where_that_folder_is(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    home.mkdir()
    open_storage(f"sqlite:///{home}/studies.db", home)
    assert (home / "studies.db").is_file()
    assert os.listdir(tmp_path) == [name]


def test_a_quoted_url_names_the_folder_with_the_space(tmp_path: Path) -> None:
    (tmp_path / "my runs").mkdir()
    assert sqlite_path(f"sqlite:///{tmp_path}/my%20runs/s.db") == tmp_path / "my runs" / "s.db"


@pytest.mark.parametrize(
    "url",
    ["postgresql+psycopg2://me:p%40ss@host/db", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x.db?mode=ro&uri=true",
    "mysql+pymysql://h/d?x=1"],
)  # fmt: skip
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert clean_url(url) == url


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_plain_url_of_postgresql_goes_by_psycopg_3(scheme: str) -> None:
    assert clean_url(f"{scheme}://me:p%40ss@host/db") == "postgresql+psycopg://me:p%40ss@host/db"


@pytest.mark.parametrize("query", ["timeout=5", "mode=ro&cache=shared"])
def test_options_of_a_url_are_kept(query: str, tmp_path: Path) -> None:
    home = tmp_path / "a%20b"
    home.mkdir()
    found = make_url(clean_url(f"sqlite:///{home}/studies.db?{query}"))
    assert found.database == f"{home}/studies.db"
    assert "&".join(f"{key}={value}" for key, value in found.query.items()) == query


def test_a_relative_path_in_a_url_becomes_absolute(here: Callable[[str], Path]) -> None:
    folder = here("x")
    assert sqlite_path("sqlite:///mlruns/s.db") == folder / "mlruns" / "s.db"


def test_passwords_are_not_shown_and_paths_are() -> None:
    assert "secret" not in redacted("postgresql://me:secret@host/db")
    assert redacted("sqlite:////a/me@host/x.db") == "sqlite:////a/me@host/x.db"


def _deep(folder: Path, length: int) -> Path:
    """A folder below ``folder`` whose path has ``length`` bytes."""
    while len(str(folder)) + 120 < length:
        folder = folder / ("x" * 100)
    return folder / ("y" * (length - len(str(folder)) - 1))


def test_the_longest_path_works_and_one_byte_more_is_refused_before_anything_is_written(
    tmp_path: Path, make_config: Callable[..., StudyConfig]
) -> None:
    room = LONGEST - len("/studies.db")
    run_study(make_config("n_trials=1", f"home={_deep(tmp_path, room)}"), Quiet())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=f"home: .* at most {LONGEST} bytes"):
        make_config(f"home={_deep(tmp_path, room + 1)}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["relative", "dots", "symlink", "tilde"])
def test_home_may_be_written_in_any_way(
    kind: str, here: Callable[[str], Path], make_config: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here("user/my%20project")
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(folder))
    home = {"relative": "a/b", "dots": "../my%20project/a/b", "symlink": "../link/a/b", "tilde": "~/a/b"}[kind]
    config = make_config("n_trials=1", f"home='{home}'")
    run_study(config, Quiet())
    assert (folder / "a" / "b" / "studies.db").is_file()
    assert sorted(os.listdir(folder)) == ["a"]
