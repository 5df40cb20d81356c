"""A module of a user's that imports what it needs from where it was in commit decccce is still built as it stands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from objectives.protocols.corpus import Corpus, Document
from objectives.protocols.optional import Supplied
from objectives.tasks.provenance import code_sources, own_classes
from search.config.study_config import build_config
from search.errors import ConfigError
from search.space.instantiate import first_spelled
from tests.search.conftest import composed

WRITTEN = '''
from __future__ import annotations

from dataclasses import dataclass

from objectives import anatomy, families
from objectives.calibration import Statistics
from objectives.content import sha256
from objectives.evaluator import Evaluator
from objectives.inspection.config import read_json
from objectives.measuring.generation import Generation
from objectives.quantization.grid import Codes
from objectives.tasks.corpora import Corpus, Document
from objectives.types import Candidate, Divisible, Lap, Materials, Pruner, Runner, Score, Supplied, Task, Watch
from search.floor import AccuracyFloor
from search.records import TrialRecord
from search.space import Space


@dataclass(frozen=True)
class Lines(Corpus, Supplied):
    texts: int = 3

    def documents(self):
        return tuple(Document(str(number), f"text {number}") for number in range(self.texts))

    def require_documents(self):
        """It has them."""


@dataclass(frozen=True)
class Half(Pruner):
    ratio: float = 0.0

    def prune_(self, model, statistics: Statistics): ...
    def resize_fake_(self, model, statistics): ...
    def predict(self, statistics):
        return 0.0


@dataclass(frozen=True)
class Before(Pruner):
    """Has the members of decccce."""

    ratio: float = 0.0

    def prune_(self, model, statistics): ...
    def sketch_(self, model, statistics): ...
    def predict(self, statistics):
        return 0.0


@dataclass(frozen=True)
class Mine(Task):
    corpus: object = Lines()

    @property
    def head(self):
        return "causal_lm"

    def calibration(self, model):
        return {}

    def evaluate(self, model: Runner) -> Score:
        return Score(0.5, 0.0, (0.5,))


@dataclass(frozen=True)
class Longer(Generation):
    """Ours under another name."""
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of that user."""
    file = tmp_path / "written_before.py"
    file.write_text(WRITTEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield file
    sys.modules.pop("written_before", None)


def settings(pruner: str) -> dict[str, Any]:
    resolved = composed("experiment=ci_tiny", "device=cpu", "tracker=none", "allow_targets=[written_before]")
    resolved["task"] = {"_target_": "written_before.Mine", "corpus": {"_target_": "written_before.Lines"}}
    resolved["pruning"] = {"_target_": f"written_before.{pruner}"}
    return resolved


def test_classes_with_old_imports_are_built_and_are_what_their_protocols_ask_for(module: Path) -> None:
    config = build_config(settings("Half"))
    corpus = config.task.corpus  # type: ignore[attr-defined]
    assert isinstance(corpus, Corpus)
    assert isinstance(corpus, Supplied)
    assert corpus.documents()[0] == Document("0", "text 0")
    assert [source.path for source in code_sources(own_classes(config.task))] == [str(module)]


def test_a_member_that_has_another_name_is_named_when_the_study_is_built(module: Path) -> None:
    with pytest.raises(ConfigError, match=r"^pruning: .*resize_fake_"):
        build_config(settings("Before"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("search.floor.AccuracyFloor", "search.front.accuracy_floor.AccuracyFloor"),
        ("objectives.measuring.generation.Generation", "objectives.workloads.generation.Generation"),
    ],
)
def test_a_study_is_named_after_the_first_spelling(old: str, new: str) -> None:
    assert first_spelled({"_target_": new}) == first_spelled({"_target_": old}) == {"_target_": old}
