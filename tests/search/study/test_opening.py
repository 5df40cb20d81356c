from __future__ import annotations

import logging

import optuna
import pytest

from search.errors import StudyConflict
from search.study import opening, store

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


def test_a_study_without_a_machine_takes_the_first_one_silently(study, caplog) -> None:
    study.set_user_attr(store.MACHINE, {})
    assert told(caplog, study) == []
    assert study.user_attrs[store.MACHINE] == MACHINE


def test_other_weights_are_refused_and_the_machine_stays_as_it_was(study, caplog) -> None:
    with pytest.raises(StudyConflict, match=r"^model\.path: the weights differ"):
        told(caplog, study, model_sha256="y", cores="8")
    assert caplog.records == []
    assert study.user_attrs[store.MACHINE] == MACHINE
