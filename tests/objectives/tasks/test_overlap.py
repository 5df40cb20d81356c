"""A text that calibrates is not scored, whatever its name, white space or domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from objectives.errors import ModelError, TaskError
from objectives.models import LoadedModel
from objectives.protocols.corpus import Document
from objectives.tasks.domains import Domains
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.overlap import require_disjoint
from objectives.tasks.retrieval import Retrieval

Tiny = Callable[[str], LoadedModel]


@dataclass(frozen=True)
class Texts:
    rows: tuple[Document, ...]

    def documents(self) -> tuple[Document, ...]:
        return self.rows


TEXTS = tuple(Document(str(i), f"{chr(97 + i)} " * 12, f"about {i}") for i in range(6))
READING = LanguageModeling(corpus=Texts(TEXTS), tokens=16, documents=3, calibration_documents=3)
FEW = replace(READING, documents=2)
LOOKING = Retrieval(corpus=Texts(TEXTS), calibration_pairs=3)


def with_copy(task: Any, **copy: str) -> Any:
    """The last document as a copy of the first, under another name."""
    return replace(task, corpus=Texts((*TEXTS[:-1], replace(TEXTS[0], id="copy", **copy))))


def test_disjoint_texts_pass(tiny: Tiny) -> None:
    for task in (READING, LOOKING, Domains(served={"a": READING})):
        require_disjoint(task, tiny("llama"))


@pytest.mark.parametrize(
    "task",
    [
        with_copy(FEW),
        with_copy(FEW, text=TEXTS[0].text.replace(" ", "\n")),
        with_copy(FEW, text=TEXTS[0].text + "and another end"),
        with_copy(LOOKING),
        with_copy(LOOKING, summary="another summary"),
    ],
)
def test_a_copy_of_a_calibration_row_is_not_scored_and_is_named(task: Any, tiny: Tiny) -> None:
    line = "task: 1 rows are not scored, as their text calibrates: scored copy = calibration 0"
    assert require_disjoint(task, tiny("llama")) == line
    assert "copy" not in [row.name for row in task.excerpts(tiny("llama")).scored]
    assert require_disjoint(Domains(served={"a": task}), tiny("llama")) == line.replace("copy", "a:copy").replace(
        "calibration 0", "calibration a:0"
    )


def test_too_few_rows_without_copies_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="1 that calibrate under another name are not scored"):
        replace(with_copy(READING), documents=3).calibration(tiny("llama"))


@pytest.mark.parametrize("group", ["served", "unseen"])
def test_no_domain_scores_what_another_calibrates_with(group: str, tiny: Tiny) -> None:
    other = replace(READING, corpus=Texts(tuple(reversed(TEXTS))))
    task = Domains(served={"a": READING, **({"b": other} if group == "served" else {})},
                   unseen={"b": other} if group == "unseen" else {})  # fmt: skip
    with pytest.raises(TaskError, match=r"scored rows calibrate too, .*b:"):
        require_disjoint(task, tiny("llama"))


def test_documents_of_two_files_may_share_their_names(tiny: Tiny) -> None:
    twice = tuple(replace(document, id=str(place % 3)) for place, document in enumerate(TEXTS))
    require_disjoint(replace(READING, corpus=Texts(twice)), tiny("llama"))
