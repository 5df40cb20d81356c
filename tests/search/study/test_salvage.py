"""What a torn page took leaves a study that goes on: every trial has its number once, and its own facts alone."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.study.patient_storage import PatientStorage
from search.study.salvage import DEFINITION, salvaged

COUNT = 6


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store of six trials."""
    found = tmp_path / "studies.db"
    storage = PatientStorage(f"sqlite:///{found}")
    study = optuna.create_study(study_name="torn", storage=storage, directions=["minimize", "minimize"])
    study.set_user_attr(DEFINITION, {})
    for number in range(COUNT):
        trial = study.ask()
        trial.suggest_float("ratio", 0, 1)
        trial.set_user_attr("record", {"number": number})
        study.tell(trial, [number, -number])
    storage.engine.dispose()
    return found


def recovered(file: Path, *damages: str) -> optuna.Study:
    """Lose rows of ``file``, recover it, and return the study."""
    with closing(sqlite3.connect(file)) as database:
        for damage in damages:
            database.execute(damage)
        database.commit()
    found = salvaged(file)
    assert found is not None
    return optuna.load_study(study_name="torn", storage=PatientStorage(f"sqlite:///{found.file}"))


@pytest.mark.parametrize("lost", [0, 3, COUNT - 1])
def test_the_next_trial_has_a_number_and_facts_of_its_own(file: Path, lost: int) -> None:
    study = recovered(file, f"DELETE FROM trials WHERE number = {lost}")
    trial = study.ask()
    trial.suggest_float("ratio", 0, 1)
    assert trial.user_attrs == {}
    study.tell(trial, [1.0, 1.0])
    numbers = [each.number for each in study.get_trials()]
    assert len(numbers) == len(set(numbers)) == max(numbers) + 1
    assert {each.user_attrs["record"]["number"] for each in study.get_trials() if each.user_attrs} == (
        set(range(COUNT)) - {lost}
    )


@pytest.mark.parametrize("table", ["trial_values", "trial_user_attributes"])
def test_a_trial_that_was_not_read_in_full_is_settled_by_the_next_driver(file: Path, table: str) -> None:
    study = recovered(file, f"DELETE FROM {table} WHERE trial_id = 2")
    states = [each.state for each in study.get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, *[TrialState.COMPLETE] * (COUNT - 2)]


def test_an_attribute_that_is_no_json_costs_its_trial_alone(file: Path) -> None:
    study = recovered(file, "UPDATE trial_user_attributes SET value_json = substr(value_json, 3) WHERE trial_id = 2")
    assert [each.state for each in study.get_trials()].count(TrialState.COMPLETE) == COUNT - 1


def test_who_meets_a_damage_again_or_at_once_finds_the_same_copy(file: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = [each for each in pool.map(lambda _: salvaged(file), range(8)) if each is not None]
    assert [each.trials for each in found] == [COUNT] * 8
    assert len({each.file for each in found}) == 1
    assert len(list(file.parent.iterdir())) == 2


def test_trials_that_say_nothing_do_not_count(file: Path) -> None:
    study = recovered(
        file, "DELETE FROM trial_user_attributes WHERE trial_id IN (1, 2)", "DELETE FROM trials WHERE number = 4"
    )
    found = salvaged(file)
    assert found is not None
    assert len(study.get_trials()) == COUNT
    assert found.trials == COUNT - 3


def test_a_torn_number_costs_neither_time_nor_room(file: Path) -> None:
    study = recovered(
        file, "UPDATE trials SET number = 300000 WHERE number = 4", "UPDATE trials SET number = 'x' WHERE number = 3"
    )
    assert len(study.get_trials()) == COUNT


def test_a_header_that_tells_of_too_many_pages_costs_no_room(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[28:32] = (4_000_000).to_bytes(4, "big")
    file.write_bytes(content)
    began = time.monotonic()
    assert salvaged(file) is not None
    assert time.monotonic() - began < 10
