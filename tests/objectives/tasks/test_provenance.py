"""What a study's scores depend on: a change is found by name, and what nothing reads is no change."""

from __future__ import annotations

import importlib
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from objectives.protocols.corpus import Document
from objectives.tasks import provenance
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.provenance import How, Kind, Source, changes, checkpoint_sources, merged, text_sources
from objectives.tasks.reads import Reads

FILES = ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors", "vocab.txt")


@dataclass(frozen=True)
class Lines:
    file: str

    def documents(self) -> tuple[Document, ...]:
        return tuple(Document(str(i), line) for i, line in enumerate(Path(self.file).read_text().splitlines()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


def read(path: Path) -> None:
    path.read_text()


def heard(*paths: Path, without: tuple[Path, ...] = ()) -> list[str]:
    reads = Reads()
    with reads.watched():
        for path in paths:
            read(path)
    return [source.path for source in reads.sources(without)]


def told(stored: list[Source], now: list[Source]) -> list[tuple[str, How]]:
    return [(change.source.label, change.how) for change in changes(stored, now)]


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_loading_reads_counts(folder: Path, name: str) -> None:
    before = checkpoint_sources(folder)
    (folder / name).write_text("other")
    assert told(before, checkpoint_sources(folder)) == [(name, How.CHANGED)]
    (folder / name).unlink()
    assert told(before, checkpoint_sources(folder)) == [(name, How.GONE)]


def test_a_file_that_loading_would_read_counts_when_it_comes_and_others_do_not(folder: Path) -> None:
    before = checkpoint_sources(folder)
    (folder / "README.md").write_text("x")
    (folder / "trainer_state.json").write_text("{}")
    assert told(before, checkpoint_sources(folder)) == []
    (folder / "added_tokens.json").write_text("{}")
    assert told(before, checkpoint_sources(folder)) == [("added_tokens.json", How.NEW)]
    assert told([], checkpoint_sources(folder)) == []  # of a study before there were sources


def test_data_that_is_opened_counts_and_what_lies_beside_it_does_not(tmp_path: Path) -> None:
    data, beside = tmp_path / "a.txt", tmp_path / "b.txt"
    for path in (data, beside):
        path.write_text("x")
    assert heard(data, data) == [str(data)]
    assert heard(data, without=(tmp_path,)) == []


def test_opening_is_heard_whatever_opens_and_only_while_somebody_listens(tmp_path: Path) -> None:
    import numpy as np

    array, base, plain = tmp_path / "a.npy", tmp_path / "b.db", tmp_path / "c.txt"
    np.save(array, np.zeros(2))
    plain.write_text("x")
    sqlite3.connect(base).close()
    base.write_bytes(base.read_bytes())
    reads = Reads()
    with reads.watched():
        np.load(array)
        sqlite3.connect(base).close()
    plain.read_text()
    assert [source.path for source in reads.sources()] == [str(array), str(base)]


def test_what_was_written_here_first_what_is_gone_and_what_belongs_to_an_installation_is_no_data(
    tmp_path: Path,
) -> None:
    made, gone = tmp_path / "made.txt", tmp_path / "gone.txt"
    gone.write_text("x")
    reads = Reads()
    with reads.watched():
        made.write_text("x")
        for path in (made, gone, Path(pytest.__file__), Path(__file__), Path("/proc/self/stat"), Path("/etc/passwd")):
            read(path)
        gone.unlink()
    assert reads.sources() == []


def test_data_that_were_not_read_yet_are_looked_at_where_they_were(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("x")
    stored = [Source(Kind.DATA, str(file), provenance.file_hash(str(file)), str(file))]
    assert told(stored, []) == []
    file.write_text("another")
    assert told(stored, []) == [("texts.txt", How.CHANGED)]
    file.unlink()
    assert told(stored, []) == [("texts.txt", How.GONE)]


def test_the_texts_of_a_corpus_count_and_a_file_that_explains_them_is_named_alone(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\ntwo")
    task = LanguageModeling(corpus=Lines(str(file)))
    (stored,) = text_sources(task)
    file.write_text("one\nthree")
    (now,) = text_sources(task)
    assert told([stored], [now]) == [(f"texts of task.corpus ({__name__}.Lines)", How.CHANGED)]
    data = Source(Kind.DATA, "texts.txt", "a", str(file))
    assert told([stored, data], [now, replace(data, sha256="b")]) == [("texts.txt", How.CHANGED)]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of a user's that imports another beside it."""
    (tmp_path / "helper_of_mine.py").write_text("WORDS = 1\n")
    (tmp_path / "unused_of_mine.py").write_text("")
    (tmp_path / "task_of_mine.py").write_text("import helper_of_mine\nclass Mine:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("task_of_mine")
    for name in ("task_of_mine", "helper_of_mine"):
        sys.modules.pop(name, None)


def test_own_code_is_the_module_and_what_it_imports_from_beside_it(own: Any, tmp_path: Path) -> None:
    classes = provenance.own_classes({"task": own.Mine(), "other": LanguageModeling(corpus=Lines("x"))})
    assert own.Mine in classes
    before = provenance.code_sources([own.Mine])
    assert [source.name for source in before] == ["helper_of_mine", "task_of_mine"]
    (tmp_path / "helper_of_mine.py").write_text("WORDS = 22\n")
    assert told(before, provenance.code_sources([own.Mine])) == [("helper_of_mine.py", How.CHANGED)]


def test_ours_are_no_own_classes() -> None:
    from objectives.workloads.generation import Generation

    assert provenance.own_classes(Generation()) == []


def test_merging_keeps_what_was_first() -> None:
    old, new, more = Source(Kind.DATA, "a", "1"), Source(Kind.DATA, "a", "2"), Source(Kind.DATA, "b", "3")
    assert merged([old], [new, more]) == [old, more]
