"""Several tasks as they are written, and as a study keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from objectives.tasks.several import Several
from search.commands.composition import config_of
from search.config.study_config import build_config
from search.config.tasks import spread, with_tasks
from search.errors import ConfigError
from tests.search.conftest import composed

MICRO = ("experiment=ci_tiny", "device=cpu")
TWO = "tasks={topics: python_topics, more: python_topics}"


def test_one_task_is_left_as_it_is() -> None:
    resolved = {"task": {"_target_": "x"}, "accuracy_floor": {"epsilon": 0.9, "odd": 1}, "tasks": {}}
    assert with_tasks(resolved) == {key: value for key, value in resolved.items() if key != "tasks"}


def test_the_name_and_definition_of_a_study_of_one_task_do_not_know_of_several() -> None:
    resolved = composed()
    before = build_config({key: value for key, value in resolved.items() if key != "tasks"})
    now = build_config({**resolved, "tasks": {}})
    assert (now.name, now.definition) == (before.name, before.definition)
    assert set(now.definition["accuracy_floor"]) == {"_target_", "epsilon", "relative", "error"}


def test_words_of_a_command_line_become_those_of_hydra() -> None:
    assert spread(["tasks=[boolq,piqa]", "accuracy_floor.piqa=0.9", "tasks.weights.boolq=2", "n_trials=3"]) == [
        "+task@tasks.boolq=boolq", "+task@tasks.piqa=piqa", "++accuracy_floor.piqa=0.9", "++tasks.weights.boolq=2",
        "n_trials=3",
    ]  # fmt: skip
    assert spread(["accuracy_floor={a: 0.9, mean: 1}", "accuracy_floor=mlperf_999", "accuracy_floor.error=0"]) == [
        "++accuracy_floor.a=0.9", "++accuracy_floor.mean=1", "accuracy_floor=mlperf_999", "accuracy_floor.error=0"
    ]  # fmt: skip


def test_floors_are_shares_of_each_tasks_own_accuracy() -> None:
    config = config_of([*MICRO, TWO, "accuracy_floor.more=0.5"])
    assert isinstance(config.task, Several)
    assert [config.floor.of_task(name, 0.4) for name in config.task.tasks] == [0.9 * 0.4, 0.5 * 0.4]
    assert config.floor.of_mean(0.4) == 0.0


def test_a_floor_of_the_mean_asks_nothing_of_tasks_that_are_not_named() -> None:
    config = config_of([*MICRO, TWO, "accuracy_floor.more=0.5", "accuracy_floor.mean=0.8"])
    assert [config.floor.of(name) for name in ("topics", "more")] == [0.0, 0.5]
    assert config.floor.of_mean(0.5) == 0.4


def test_what_was_stored_is_read_again_with_other_floors() -> None:
    config = config_of([*MICRO, TWO, "accuracy_floor.more=0.5"])
    stored: dict[str, Any] = dict(config.resolved)
    assert build_config(stored).definition == config.definition
    again = build_config({**stored, "accuracy_floor": {**stored["accuracy_floor"], "more": 0.7}})
    assert again.floor.of("more") == 0.7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((TWO, "task=boolq"), "task: not together with tasks; 'task=boolq'"),
        ((TWO, "task.documents=2"), "task: not together with tasks"),
        (("tasks=[python_topics]",), "tasks: at least two are needed, got python_topics"),
        ((TWO, "accuracy_floor.mor=0.9"), r"accuracy_floor.mor: no task of that name \(did you mean more\?\)"),
        ((TWO, "accuracy_floor.more=90"), r"did you mean 0.9\?"),
        ((TWO, "tasks.more.documents=-1"), "tasks.more.documents: expected an integer >= 1, got -1"),
        ((TWO, "tasks.more.documents=12"), r"tasks\.more\.documents: 4 calibration \+ 12 scored ones are asked for"),
        ((TWO, "tasks.weights.mor=1"), "tasks: weights: no task 'mor'; tasks: topics, more"),
        (("accuracy_floor.mean=0.9",), "accuracy_floor.mean: is that of several tasks"),
    ],
)
def test_what_cannot_be_ends_in_one_line_that_names_the_setting(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of([*MICRO, *words])
