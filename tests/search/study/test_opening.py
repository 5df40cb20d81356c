from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from sqlalchemy import create_engine, text

from search.errors import ConfigError, StudyConflict
from search.study import opening, store
from tests.search.study.postgresql import Server

MACHINE = {
    "device": "cpu", "device_name": "Chip", "cores": "4", "memory": "16000000000", "driver": "550.1",
    "torch": "2.10.0", "numpy": "2.1.0", "git_revision": "aaaaaaaaaa", "model_sha256": "x",
}  # fmt: skip


@pytest.fixture
def study() -> optuna.Study:
    """A study that ran on MACHINE."""
    found = optuna.create_study()
    found.set_user_attr(store.MACHINE, MACHINE)
    return found


def told(caplog: pytest.LogCaptureFixture, study: optuna.Study, **changes: str) -> list[str]:
    with caplog.at_level(logging.WARNING, logger="search.study.opening"):
        opening.settle_machine(study, {**MACHINE, **changes})
    return [record.getMessage() for record in caplog.records]


def test_hardware_and_versions_are_told_apart_in_one_line_each(study, caplog) -> None:
    lines = told(caplog, study, device_name="Core", cores="8", torch="2.11.0")
    assert lines == [
        "the study was started on other hardware, timings may not compare: device_name Chip -> Core, cores 4 -> 8",
        "the study was started with other versions, results may differ: torch 2.10.0 -> 2.11.0",
    ]


def test_other_hardware_alone_says_nothing_about_versions(study, caplog) -> None:
    (line,) = told(caplog, study, cores="8")
    assert "hardware" in line
    assert line.endswith(": cores 4 -> 8")


def test_other_versions_alone_say_nothing_about_hardware(study, caplog) -> None:
    (line,) = told(caplog, study, numpy="2.2.0", git_revision="bbbbbbbbbb")
    assert line == "the study was started with other versions, results may differ: numpy 2.1.0 -> 2.2.0"


@pytest.mark.parametrize(
    "changes", [{}, {"git_revision": "bbbbbbbbbb"}, {"memory": "16100000000"}, {"tokenizers": "0.22"}]
)
def test_the_same_machine_another_revision_and_new_facts_are_no_warning(study, caplog, changes) -> None:
    assert told(caplog, study, **changes) == []
    assert study.user_attrs[store.MACHINE] == {**MACHINE, **changes}


def test_a_fact_that_is_gone_is_told(study, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="search.study.opening"):
        opening.settle_machine(
            study, {name: value for name, value in MACHINE.items() if name not in ("driver", "numpy")}
        )
    hardware, versions = (record.getMessage() for record in caplog.records)
    assert hardware.endswith(": driver 550.1 -> -")
    assert versions.endswith(": numpy 2.1.0 -> -")


def test_a_second_kind_of_device_is_refused_once_something_was_measured(study) -> None:
    study.tell(study.ask(), 1.0)
    with pytest.raises(StudyConflict, match=r"device: .* \(cores 4 -> 8\), .* study_name=.*-2 warm_start="):
        opening.settle_machine(study, {**MACHINE, "cores": "8"})
    assert study.user_attrs[store.MACHINE] == MACHINE
    opening.settle_machine(study, {**MACHINE, "driver": "560.1"})


def test_a_study_without_a_machine_takes_the_first_one_silently(study, caplog) -> None:
    study.set_user_attr(store.MACHINE, {})
    assert told(caplog, study) == []
    assert study.user_attrs[store.MACHINE] == MACHINE


def test_other_weights_are_refused_and_the_machine_stays_as_it_was(study, caplog) -> None:
    with pytest.raises(StudyConflict, match=r"^model\.path: the weights differ"):
        told(caplog, study, model_sha256="y", cores="8")
    assert caplog.records == []
    assert study.user_attrs[store.MACHINE] == MACHINE


OPENS = """
import sys
from pathlib import Path
from search.study.opening import open_storage
print("ready", flush=True)
sys.stdin.readline()
print(len(open_storage(sys.argv[1], Path(sys.argv[2])).get_all_studies()), flush=True)
"""


def opened_at_once(url: str, homes: list[Path]) -> list[str]:
    pipe = subprocess.PIPE
    all_ = [
        subprocess.Popen([sys.executable, "-c", OPENS, url, str(home)], stdin=pipe, stdout=pipe, text=True)
        for home in homes
    ]
    for one in all_:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in all_:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return [one.communicate(timeout=60)[0].strip() for one in all_]


def test_drivers_of_several_homes_begin_one_sqlite_file_at_once(tmp_path: Path) -> None:
    homes = [tmp_path / f"home{number}" for number in range(4)]
    assert opened_at_once(f"sqlite:///{tmp_path}/studies.db", homes) == ["0"] * 4


def test_drivers_of_several_homes_begin_one_database_of_a_server_at_once(postgresql: Server, tmp_path: Path) -> None:
    engine = create_engine(postgresql.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE fresh"))
    engine.dispose()
    homes = [tmp_path / f"home{number}" for number in range(4)]
    assert opened_at_once(postgresql.url.removesuffix("postgres") + "fresh", homes) == ["0"] * 4


def test_a_server_that_accepts_and_says_nothing_is_told_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://127.0.0.1:{mute.getsockname()[1]}/studies?connect_timeout=2"
        began = time.monotonic()
        with pytest.raises(ConfigError, match="storage: cannot open"):
            opening.open_storage(url, tmp_path)
    assert time.monotonic() - began < 8


def test_what_a_url_says_of_silence_counts_more() -> None:
    assert opening.engine_options("postgresql+psycopg://host/name")["connect_args"] == opening.SILENCE
    given = opening.engine_options("postgresql+psycopg://host/name?connect_timeout=2&tcp_user_timeout=0")
    assert given["connect_args"].keys() == opening.SILENCE.keys() - {"connect_timeout", "tcp_user_timeout"}
