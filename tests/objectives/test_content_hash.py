"""Names by content: equal for equal content, another for anything that could change a result."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from objectives.content_hash import Indescribable, code, digest
from objectives.protocols.corpus import Document
from objectives.tasks.retrieval import Retrieval
from objectives.workloads.encoding import Encoding

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Texts:
    file: str
    rows: tuple[Document, ...] = field(default=(), compare=False)

    def documents(self) -> tuple[Document, ...]:
        return self.rows


def test_equal_settings_have_one_name_and_others_another() -> None:
    assert digest("score", Encoding(batch_size=4)) == digest("score", Encoding(batch_size=4))
    assert digest("score", Encoding(batch_size=4)) != digest("score", Encoding(batch_size=8))
    assert digest("score", Encoding()) != digest("time", Encoding())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (True, 1),
        ("1", 1),
        (None, "None"),
        (0.1, 0.1 + 1e-17 * 2),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        ((1,), 1),
    ],
)
def test_unlike_values_have_unlike_names(one: Any, other: Any) -> None:
    if one == other and type(one) is type(other):
        assert digest(one) == digest(other)
    else:
        assert digest(one) != digest(other)


def test_order_counts_in_lists_and_not_in_mappings_and_sets() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(frozenset({16, 8, 4})) == digest(frozenset({4, 8, 16}))


def test_the_texts_of_a_corpus_count_and_not_only_its_settings() -> None:
    task = Retrieval(corpus=Texts("a.jsonl", (Document("1", "text", "sum"),)))
    same = replace(task, corpus=Texts("a.jsonl", (Document("1", "text", "sum"),)))
    edited = replace(task, corpus=Texts("a.jsonl", (Document("1", "text!", "sum"),)))
    moved = replace(task, corpus=Texts("a.jsonl", (Document("1", "texts", "um"),)))
    assert digest(task) == digest(same)
    assert len({digest(task), digest(edited), digest(moved)}) == 3


SOURCE = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Method:
    ratio: float = 0.5
"""


def test_the_source_of_a_class_that_is_not_ours_counts(tmp_path: Path) -> None:
    """As two processes see it before and after an edit."""
    names = []
    for source in (SOURCE, SOURCE, SOURCE + "# edited"):
        (tmp_path / "mine.py").write_text(source)
        command = "from mine import Method; from objectives.content_hash import digest; print(digest(Method()))"
        done = subprocess.run(
            [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        )  # fmt: skip
        names.append(done.stdout)
    assert names[0] == names[1] != names[2]


def test_what_has_no_known_content_has_no_name() -> None:
    with pytest.raises(Indescribable, match="object"):
        digest({"method": object()})


def test_the_code_has_one_name_while_it_is_not_edited() -> None:
    assert code() == code()
    assert len(code()) == 64
