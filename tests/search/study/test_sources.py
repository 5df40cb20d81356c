"""A study goes on only with what it was begun with: whatever a score depends on, by name, and the two ways out."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from objectives.cache import Cache
from objectives.evaluation.evaluator import Evaluator
from objectives.models import Checkpoint
from objectives.tasks.provenance import Kind, Source
from search.commands.export import require_measured
from search.config.study_config import build_config
from search.errors import ConfigError, StudyConflict
from search.study import opening
from search.study.study import run_study
from tests.search.conftest import FakeExecutor, Quiet, composed, done
from tests.search.executors.test_executors import problem  # noqa: F401

FIRST = [
    Source(Kind.MODEL, "tokenizer.json", "a", "/m/tokenizer.json"),
    Source(Kind.CODE, "mine", "c", "/u/mine.py"),
    Source(Kind.TEXTS, "texts of task.corpus (mine.Lines)", "d"),
]


class Depends(FakeExecutor):
    """Says what scores depend on; ``later``: what the baseline's scoring adds."""

    sources_now: tuple[list[Source], list[Source]] = (FIRST, FIRST)

    def sources(self) -> Future[list[Any]]:
        return done(self.sources_now[bool(self.asked)])


def run(config: Any, first: list[Source], then: list[Source] | None = None) -> Any:
    executor = Depends()
    executor.sources_now = (first, first if then is None else then)
    return run_study(replace(config, executor=executor), Quiet())


def changed(place: int) -> list[Source]:
    return [replace(each, sha256="z") if index == place else each for index, each in enumerate(FIRST)]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (changed(0), "tokenizer.json changed;"),
        (changed(1), "mine.py changed;"),
        (changed(2), r"texts of task.corpus \(mine.Lines\) changed;"),
        (FIRST[1:], "tokenizer.json is gone;"),
        ([*FIRST, Source(Kind.MODEL, "added_tokens.json", "x", "/m/added_tokens.json")], "added_tokens.json is new;"),
    ],
)
def test_a_study_whose_inputs_changed_is_refused_before_any_trial(make_config, now, words) -> None:
    config = make_config("n_trials=1", "study_name=one")
    before = len(run(config, FIRST).records)
    with pytest.raises(StudyConflict, match=rf"one was begun with other inputs: {words} put .* study_name=one-2$"):
        run(replace(config, limits=replace(config.limits, n_trials=4)), now)
    assert len(run(config, FIRST).records) == before  # put back, it goes on


def test_data_that_the_baselines_scoring_read_are_held_too(make_config, tmp_path: Path) -> None:
    from objectives.tasks.provenance import file_hash

    file = tmp_path / "labels.txt"
    file.write_text("a")
    read = Source(Kind.DATA, str(file), file_hash(str(file)), str(file))
    config = make_config("n_trials=1", "study_name=two")
    run(config, FIRST, [*FIRST, read])
    file.write_text("other")
    with pytest.raises(StudyConflict, match=r"labels\.txt changed"):
        run(config, FIRST)


def test_a_study_from_before_takes_what_there_is(make_config) -> None:
    config = make_config("n_trials=1", "study_name=old")
    run(config, [])
    run(config, FIRST)
    with pytest.raises(StudyConflict):
        run(config, changed(1))


def test_an_old_trial_is_exported_only_with_what_it_was_measured_with() -> None:
    model = SimpleNamespace(weights_hash=lambda: "w")
    study: Any = SimpleNamespace(config=SimpleNamespace(name="s", model=model), sources=FIRST, machine={})
    require_measured(study, FIRST)
    with pytest.raises(StudyConflict, match=r"tokenizer\.json changed"):
        require_measured(study, changed(0))
    study.sources, study.machine = [], {"model_sha256": "other"}  # stored before there were sources
    with pytest.raises(StudyConflict, match="weights differ"):
        require_measured(study, FIRST)


# ---- the whole way, on a tiny model and a user's task that reads a file when it scores

TASK = """
from dataclasses import dataclass
from pathlib import Path
from objectives.types import Score
@dataclass(frozen=True)
class Mine:
    folder: str
    head: str = "causal_lm"
    def calibration(self, model):
        import torch
        return {"a": [torch.arange(32).view(2, 16)]}
    def evaluate(self, model):
        return Score(float(Path(self.folder, "labels.txt").read_text()), 0.0, (0.5, 0.5))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path]) -> Iterator[Path]:
    import shutil

    shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    (tmp_path / "mine_of_test.py").write_text(TASK)
    (tmp_path / "labels.txt").write_text("0.5")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mine_of_test", None)


def sources(problem: Any, folder: Path) -> list[Source]:  # noqa: F811
    """As a new process finds them after it prepared: the user's module is loaded anew."""
    sys.modules.pop("mine_of_test", None)
    importlib.invalidate_caches()
    task = importlib.import_module("mine_of_test").Mine(str(folder))
    model = Checkpoint(path=str(folder / "model"), head="causal_lm")
    evaluator = Evaluator(replace(problem, model=model, task=task))
    evaluator.prepare()
    return evaluator.sources()


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def edit_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_file_that_is_read_on_import_or_construction_is_found(own: Path, make_config) -> None:
    (own / "words.txt").write_text("a")
    (own / "sizes.txt").write_text("2")
    code = TASK.replace("@dataclass", 'WORDS = Path(__file__).with_name("words.txt").read_text()\n@dataclass')
    code += '    def __post_init__(self):\n        Path(self.folder, "sizes.txt").read_text()\n'
    (own / "mine_of_test.py").write_text(code)
    node = {"_target_": "mine_of_test.Mine", "folder": str(own)}
    config = build_config({**composed("experiment=ci_tiny", "allow_targets=[mine_of_test]"), "task": node})
    assert {source.label for source in config.read} == {"words.txt", "sizes.txt"}
    assert make_config().read == ()


def test_a_score_is_not_taken_from_the_cache_when_data_that_it_read_changed(own: Path, problem: Any) -> None:  # noqa: F811
    task = importlib.import_module("mine_of_test").Mine(str(own))
    model = Checkpoint(path=str(own / "model"), head="causal_lm")
    asked = replace(problem, model=model, task=task, cache=Cache(folder=str(own / "cache")))
    found = []
    for text in ("0.5", "0.5", "0.625"):
        (own / "labels.txt").write_text(text)
        evaluator = Evaluator(asked)
        evaluator.prepare()
        found.append(evaluator.score(asked.baseline).accuracy)
        assert "labels.txt" in {source.label for source in evaluator.sources()}  # also of a score that was kept
    assert found == [0.5, 0.5, 0.625]


CHANGES: dict[str, Callable[[Path], Any]] = {
    "tokenizer.json": lambda at: append(at / "model/tokenizer.json", "\n"),
    "generation_config.json": lambda at: edit_json(at / "model/generation_config.json", max_new_tokens=7),
    "config.json": lambda at: edit_json(at / "model/config.json", rope_theta=5000.0),
    "mine_of_test.py": lambda at: (at / "mine_of_test.py").write_text(TASK + "# edited, in other words\n"),
    "labels.txt": lambda at: (at / "labels.txt").write_text("0.625"),
}


def test_what_a_users_task_and_the_checkpoint_read_is_found_by_name(own: Path, problem: Any) -> None:  # noqa: F811
    before = sources(problem, own)
    (own / "beside.txt").write_text("nothing reads this")
    (own / "model" / "README.md").write_text("nor this")
    opening.require_unchanged("s", before, sources(problem, own))
    for name, change in CHANGES.items():
        kept = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
        change(own)
        with pytest.raises(StudyConflict, match=rf"other inputs: {name} changed; put"):
            opening.require_unchanged("s", before, sources(problem, own))
        for path, content in kept.items():
            path.write_bytes(content)


@pytest.mark.parametrize(("answer", "words"), [("0.5", "got float 0.5"), ("{}['x']", "raised KeyError: 'x'")])
def test_a_faulty_task_is_told_before_the_first_trial(make_config, own, problem, answer, words) -> None:  # noqa: F811
    from search.executors.in_process import InProcess

    code = TASK.replace('Score(float(Path(self.folder, "labels.txt").read_text()), 0.0, (0.5, 0.5))', answer)
    (own / "mine_of_test.py").write_text(code)
    task = importlib.import_module("mine_of_test").Mine(str(own))
    model = Checkpoint(path=str(own / "model"), head="causal_lm")
    config = replace(make_config("study_name=faulty"), executor=InProcess(), task=task, model=model, cache=None)
    with pytest.raises(ConfigError, match=words) as caught:
        run_study(config, Quiet())
    assert "mine_of_test.Mine" in str(caught.value)
    import optuna

    assert optuna.get_all_study_summaries(config.storage) == []
