"""``workload.tokens=task`` is the mean length of the task's texts, as the model's own tokenizer counts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.commands.composition import config_of
from search.config.study_config import StudyConfig
from search.errors import ConfigError

TEXTS = ["a cat", "a longer text", "no", "it is the longest of all texts here"]


@pytest.fixture
def overrides(tiny_folder: Callable[[str], Path], tmp_path: Path) -> list[str]:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": place % 3}) + "\n" for place, text in enumerate(TEXTS)))
    held = tmp_path / "b.jsonl"
    held.write_text(json.dumps({"text": "held", "label": 0}) + "\n")
    return ["model=classifier", f"model.path='{tiny_folder('bert, classifier')}'", "task=classification",
            f"task.data={file}", f"task.calibration={held}"]  # fmt: skip


def tokens(config: StudyConfig) -> int:
    return int(config.space.baseline_candidate().workload.tokens)  # type: ignore[attr-defined]


def test_the_length_is_the_mean_of_the_tasks_texts(overrides: list[str]) -> None:
    wanted = round(float(np.mean([len(text) for text in TEXTS])))  # this tokenizer has a token for every letter
    assert tokens(config_of([*overrides, "workload.tokens=task"])) == wanted
    assert tokens(config_of([*overrides, "workload.tokens=task", "task.tokens=5"])) == round(np.mean([5, 5, 2, 5]))
    assert tokens(config_of(overrides)) == 128


def test_a_length_is_another_definition_of_the_study(overrides: list[str]) -> None:
    wanted = config_of([*overrides, "workload.tokens=task"])
    same = config_of([*overrides, f"workload.tokens={tokens(wanted)}"])
    assert wanted.name == same.name
    assert wanted.definition == same.definition


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["workload.batch_size=task"], r"workload\.batch_size: a number expected, got task; task goes with tokens, "),
        (["workload.tokens=task", "task=retrieval", "model=encoder"], "Retrieval does not tell its texts; give a"),
    ],
)
def test_where_no_length_can_be_known_is_told(overrides: list[str], more: list[str], words: str) -> None:
    kept = [each for each in overrides if not (len(more) > 1 and each.startswith("task."))]
    with pytest.raises(ConfigError, match=words):
        config_of([*kept, *more])


@pytest.fixture
def several(overrides: list[str], tmp_path: Path) -> list[str]:
    """Two tasks of the same classifier, the second with two texts of its own."""
    other = tmp_path / "c.jsonl"
    other.write_text(
        "".join(json.dumps({"text": text, "label": place % 3}) + "\n" for place, text in enumerate(OTHERS))
    )
    named = [each for each in overrides if not each.startswith("task")]
    files = [f"tasks.{name}.calibration={tmp_path}/b.jsonl" for name in ("quiz", "news")]
    return [*named, "tasks={quiz:classification,news:classification}", *files,
            f"tasks.quiz.data={tmp_path}/a.jsonl", f"tasks.news.data={other}"]  # fmt: skip


OTHERS = ["the first of the others", "and the second of them, which is longer"]


def test_of_several_tasks_it_is_the_mean_of_all_texts(several: list[str]) -> None:
    wanted = round(float(np.mean([len(text) for text in (*TEXTS, *OTHERS)])))
    assert tokens(config_of([*several, "workload.tokens=task"])) == wanted
    cut = [*(min(len(text), 5) for text in TEXTS), *map(len, OTHERS)]
    assert tokens(config_of([*several, "workload.tokens=task", "tasks.quiz.tokens=5"])) == round(float(np.mean(cut)))


def test_one_of_several_tasks_that_tells_no_texts_is_named(several: list[str]) -> None:
    kept = [each for each in several if not each.startswith(("tasks=", "tasks.news"))]
    words = [
        "model=encoder",
        "tasks={quiz:similarity,news:retrieval}",
        "workload.tokens=task",
        "tasks.quiz.text_b=text",
    ]
    with pytest.raises(ConfigError, match=r"Retrieval \(tasks\.news\) does not tell its texts; give a number"):
        config_of([*(each for each in kept if not each.startswith("model=")), *words])


def test_what_is_written_does_not_limit_what_is_read(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": text, "target": "so"}) + "\n" for text in TEXTS)
    (tmp_path / "a.jsonl").write_text(rows)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "held", "target": "so"}) + "\n")
    config = config_of([
        "model=seq2seq", f"model.path='{tiny_folder('t5')}'", "task=generation", "task.head=seq2seq",
        f"task.data={tmp_path}/a.jsonl", f"task.calibration={tmp_path}/b.jsonl", "task.new_tokens=2",
        "workload=translation", "workload.source_tokens=task",
    ])  # fmt: skip
    found = config.space.baseline_candidate().workload.source_tokens  # type: ignore[attr-defined]
    assert found == round(float(np.mean([len(text) for text in TEXTS])))
