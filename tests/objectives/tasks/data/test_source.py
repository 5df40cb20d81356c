"""Files are read once, a file that changed is read again, and a study notes its inputs either way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from objectives.tasks.classification import Classification
from objectives.tasks.data import file_states, files, json_rows, source
from objectives.tasks.data.rows import Row
from objectives.tasks.provenance import How, changes
from objectives.tasks.reads import Reads

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests write and read within the grain of a file system's clock; they change what they write by its size."""
    monkeypatch.setattr(file_states, "GRAIN", -(10**12))
    for kept in (files._read_rows, source._divided):
        kept.cache_clear()
    yield
    for kept in (files._read_rows, source._divided):
        kept.cache_clear()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str = "a.jsonl", word: str = "row", count: int = 9) -> str:
        rows = [{"text": f"{word} {number}", "label": "a"} for number in range(count)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return written


def task(data: str, **settings: Any) -> Classification:
    return Classification(data=data, calibration_rows=2, **settings)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are parsed from here on."""
    seen: list[Path] = []
    plain = json_rows.text_of

    def text(file: Path) -> str:
        seen.append(file)
        return plain(file)

    monkeypatch.setattr(json_rows, "text_of", text)
    return seen


def test_a_file_is_read_once_whoever_asks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = write(), counted(monkeypatch)
    first = task(data).divided()
    again = pickle.loads(pickle.dumps(task(data)))  # as a worker gets it
    again.require_documents()
    assert again.remarks() == (first.remark,)
    assert again.divided() is first
    assert len(files.read_rows(data, "task.data")) == 9
    assert seen == [Path(data)]


@pytest.mark.parametrize("setting", [{"limit": 3}, {"seed": 1, "limit": 3}, {"calibration_rows": 3}])
def test_other_settings_are_another_division_of_the_rows_that_were_read(
    write: Write, setting: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen = write(), counted(monkeypatch)
    plain = Classification(data=data)
    other = Classification(data=data, **setting)  # type: ignore[arg-type]
    before, after = plain.divided(), other.divided()
    assert (after.calibration, after.scored) != (before.calibration, before.scored)
    assert len(after.scored) == setting.get("limit", 6)
    assert len(seen) == 1


@pytest.mark.parametrize("changed", ["a.jsonl", "b.jsonl"])
def test_a_file_that_changed_is_read_again(write: Write, changed: str) -> None:
    both = task(write("a.jsonl", "scored"), calibration=write("b.jsonl", "held"))
    before = both.divided()
    write(changed, "another word")
    after = both.divided()
    assert (after.scored != before.scored, after.calibration != before.calibration) == (
        changed == "a.jsonl",
        changed == "b.jsonl",
    )
    assert any("another word" in row.values["text"] for row in [*after.scored, *after.calibration])


def test_a_file_that_comes_into_a_folder_is_read(write: Write, tmp_path: Path) -> None:
    write("a.jsonl")
    folder = task(str(tmp_path))
    before = folder.divided()
    write("b.jsonl", "more")
    assert len(folder.divided().scored) == len(before.scored) + 9


def test_a_change_that_keeps_size_and_time_is_seen_where_the_file_is_another(write: Write, tmp_path: Path) -> None:
    data = write(word="row")
    facts = os.stat(data)
    before = task(data).divided()
    other = write("other", "ROW")
    os.replace(other, data)
    os.utime(data, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert os.stat(data).st_size == facts.st_size
    assert os.stat(data).st_mtime_ns == facts.st_mtime_ns
    assert task(data).divided().scored != before.scored


def test_a_file_that_was_just_written_is_not_trusted(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_states, "GRAIN", 10**12)
    data = write()
    assert task(data).divided() is not task(data).divided()


def test_a_study_notes_files_whose_rows_were_kept_and_that_they_changed(write: Write) -> None:
    both = task(write("a.jsonl", "scored"), calibration=write("b.jsonl", "held"))
    both.divided()
    reads = Reads()
    with reads.watched():
        both.divided()
    stored = reads.sources()
    assert sorted(each.path for each in stored) == [both.data, both.calibration_data]
    write("a.jsonl", "another word")
    again = Reads()
    with again.watched():
        both.divided()
    assert [(each.source.path, each.how) for each in changes(stored, again.sources())] == [(both.data, How.CHANGED)]


def test_a_file_that_cannot_be_opened_is_never_as_it_was(tmp_path: Path) -> None:
    gone = tmp_path / "gone.jsonl"
    assert file_states.state_of(gone) != file_states.state_of(gone)


def test_the_content_of_a_row_is_computed_once_and_equal_rows_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    row, other = Row({"b": 1, "a": "ä"}, "f", 1), Row({"a": "ä", "b": 1}, "f", 1)
    wanted = hashlib.sha256('{"a": "ä", "b": 1}'.encode()).hexdigest()
    assert row.content == other.content == wanted
    assert row == Row({"b": 1, "a": "ä"}, "f", 1)
    monkeypatch.setattr("objectives.tasks.data.rows._JSON", None)
    assert row.content == pickle.loads(pickle.dumps(row)).content == other.content


def test_a_task_that_holds_a_list_divides_its_rows_all_the_same(tmp_path: Path) -> None:
    from pydantic.dataclasses import dataclass as settings

    from objectives.tasks.data.source import ROWS_FORBID, FromFiles

    @settings(frozen=True, kw_only=True, config=ROWS_FORBID)
    class Listing(FromFiles):
        names: list[str]

    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\nthree\nfour\n")
    task = Listing(data=str(file), names=["a"])
    assert len(task.divided().scored) == len(task.divided().scored) == 2
