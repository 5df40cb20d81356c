"""A copy of a store outlives what happens to the store."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from search.errors import StoreFailed
from search.study.backup import back_up, backup_of, studies_in
from search.study.opening import open_storage
from search.study.patient_storage import PatientStorage


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "studies.db"


def begin(file: Path, name: str) -> None:
    """Add a study whose uid is its name, and copy the store."""
    storage = PatientStorage(f"sqlite:///{file}")
    optuna.create_study(study_name=name, storage=storage).set_user_attr("uid", name)
    storage.engine.dispose()
    back_up(f"sqlite:///{file}")


def test_a_copy_holds_what_the_store_holds(file: Path) -> None:
    begin(file, "one")
    begin(file, "two")
    assert studies_in(backup_of(file)) == {'"one"', '"two"'}
    assert [each.name for each in sorted(file.parent.iterdir())] == ["studies.db", "studies.db.backup"]


def test_an_emptied_store_is_refused_and_keeps_its_copy(file: Path) -> None:
    begin(file, "one")
    file.write_bytes(b"")
    with pytest.raises(StoreFailed, match=r"studies\.db is empty, and its copy .*backup holds 1 study: put it back"):
        open_storage(f"sqlite:///{file}", file.parent)
    assert studies_in(backup_of(file)) == {'"one"'}
    backup_of(file).unlink()
    open_storage(f"sqlite:///{file}", file.parent)


def test_a_copy_with_studies_that_the_store_lost_stays(file: Path) -> None:
    begin(file, "one")
    file.unlink()
    begin(file, "two")
    begin(file, "three")
    assert studies_in(backup_of(file)) == {'"two"', '"three"'}
    assert studies_in(file.with_name("studies.db.backup.old")) == {'"one"'}
