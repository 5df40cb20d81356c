"""A refused command takes its own folder away, and nothing that was there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import main
from search.commands.leftovers import clear_refused
from search.errors import BaselineFailed, ConfigError, ParetuneError


def job_of(home: Path, *more: str) -> Path:
    """As Hydra leaves a job's folder, with ``more`` files in it."""
    folder = home / "hydra" / "2026-11-28" / "12-00-00"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "run.log").touch()
    for name in more:
        (folder / name).write_text("kept", encoding="utf-8")
    return folder


def test_what_hydra_made_goes_up_to_the_home_and_the_users_empty_folder_stays(tmp_path: Path) -> None:
    home = tmp_path / "empty folder of the user" / "mlruns"
    clear_refused(ConfigError("no"), job_of(home), home)
    assert not home.exists()
    assert home.parent.is_dir()


@pytest.mark.parametrize("more", ["studies.db", "notes.txt"])
def test_a_folder_with_anything_else_stays(tmp_path: Path, more: str) -> None:
    folder = job_of(tmp_path / "mlruns", more)
    clear_refused(ConfigError("no"), folder, tmp_path / "mlruns")
    assert (folder / more).is_file()


def test_what_else_lies_in_the_home_stays(tmp_path: Path) -> None:
    home = tmp_path / "mlruns"
    folder = job_of(home)
    (home / "reports").mkdir()
    clear_refused(ConfigError("no"), folder, home)
    assert [path.name for path in home.iterdir()] == ["reports"]


@pytest.mark.parametrize("error", [BaselineFailed("no"), ParetuneError("no")])
def test_after_a_failure_that_is_no_refusal_everything_stays(tmp_path: Path, error: ParetuneError) -> None:
    folder = job_of(tmp_path / "mlruns")
    clear_refused(error, folder, tmp_path / "mlruns")
    assert (folder / ".hydra").is_dir()


def test_a_folder_that_hydra_was_told_to_use_elsewhere_stays(tmp_path: Path) -> None:
    folder = job_of(tmp_path / "elsewhere")
    clear_refused(ConfigError("no"), folder, tmp_path / "mlruns")
    assert folder.is_dir()


def test_a_home_that_was_there_stays(tmp_path: Path) -> None:
    home = tmp_path / "mlruns"
    clear_refused(ConfigError("no"), job_of(home), home, was_there=True)
    assert list(home.iterdir()) == []


def test_a_file_of_the_same_name_as_hydras_stays_outside_of_the_home(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text("mine", encoding="utf-8")
    clear_refused(ConfigError("no"), job_of(tmp_path / "mlruns"), tmp_path / "mlruns")
    assert (tmp_path / "multirun.yaml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("existed", [True, False])
def test_the_command_leaves_the_working_folder_and_an_empty_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    working = tmp_path / "a" / "b"
    working.mkdir(parents=True)
    monkeypatch.chdir(working)
    if existed:
        (working / "mine").mkdir()
    monkeypatch.setattr("sys.argv", ["paretune"])
    assert main(["run", "experiment=ci_tiny", "n_trials=-1", "home=mine"]) == 2
    assert [path.name for path in working.iterdir()] == (["mine"] if existed else [])
