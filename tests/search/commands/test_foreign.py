"""Commands that only read write nothing into a database that is somebody else's."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from search.cli import main
from search.config.study_config import StudyConfig
from search.study.foreign import has_tables
from search.study.study import run_study
from tests.search.conftest import Quiet
from tests.search.study.postgresql import Server

COMMANDS = (["studies"], ["studies", "export"], ["report"], ["best"], ["sync"])


def foreign(file: Path, mode: str = "delete") -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("CREATE TABLE studies (name TEXT)")  # of another kind
        database.commit()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_an_sqlite_file_of_another_program_stays_as_it_is(
    command: list[str], mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, home = tmp_path / "theirs", tmp_path / "home"
    theirs.mkdir()
    foreign(theirs / "applications.sqlite", mode)
    before = content(theirs)
    assert main([*command, f"storage=sqlite:///{theirs}/applications.sqlite", f"home={home}"]) == 2
    said = capsys.readouterr().err
    assert said == f"paretune: storage: {theirs}/applications.sqlite holds no study; run one, or give home=<folder>\n"
    assert content(theirs) == before
    assert not home.exists()


def test_a_file_that_is_no_database_stays_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("Nothing of a database, however long one reads in it.\n" * 99)
    assert main(["studies", f"storage=sqlite:///{tmp_path}/notes.txt", f"home={tmp_path / 'home'}"]) == 2
    assert "is damaged, and stays as it is" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_store_is_found_while_another_process_writes_to_it(
    make_config: Callable[..., StudyConfig], mode: str
) -> None:
    config = make_config("n_trials=2", "sampler=exhaustive")
    run_study(config, Quiet())
    file = config.home / "studies.db"
    with closing(sqlite3.connect(file)) as writer:
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("CREATE TABLE another (a)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO another VALUES (1)")
        assert has_tables(config.storage)
    assert has_tables(config.storage)
    assert main(["studies", f"home={config.home}"]) == 0


KILLED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size=1")
database.execute("BEGIN")
for number in range(500):
    database.execute("INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, ?)",
                     (str(number), "x" * 2000))
os._exit(1)
"""


def test_a_store_whose_writer_was_killed_in_the_middle_is_still_read(make_config: Callable[..., StudyConfig]) -> None:
    config = make_config("n_trials=2", "sampler=exhaustive")
    run_study(config, Quiet())
    file = config.home / "studies.db"
    subprocess.run([sys.executable, "-c", KILLED, file], check=False)
    assert file.with_name("studies.db-journal").stat().st_size > 0
    assert main(["studies", f"home={config.home}"]) == 0


def test_a_database_of_a_server_that_holds_no_studies_stays_as_it_is(
    postgresql: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = create_engine(postgresql.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE theirs"))
    url = f"{postgresql.url.removesuffix('/postgres')}/theirs"
    theirs = create_engine(url)
    try:
        for command in COMMANDS:
            assert main([*command, f"storage={url}", f"home={tmp_path / 'home'}"]) == 2
            said = capsys.readouterr().err
            assert "holds no study" in said
            assert "secret" not in said
        assert inspect(theirs).get_table_names() == []
        assert not (tmp_path / "home").exists()
    finally:
        theirs.dispose()
        with engine.connect() as connection:
            connection.execute(text("DROP DATABASE theirs"))
        engine.dispose()
