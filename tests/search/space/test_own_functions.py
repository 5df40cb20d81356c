"""A function that a setting names is imported only where its module is admitted; the working folder is looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from objectives.settings import functions_of
from objectives.tasks.choice import Choice
from objectives.tasks.custom import Custom, CustomRows
from objectives.tasks.provenance import code_sources, own_code
from search.config.study_config import build_config
from search.errors import ConfigError
from search.space.instantiate import build
from tests.search.conftest import composed

WRITTEN = """
from pathlib import Path

Path("imported").touch()

def score(model, rows):
    return [1.0] * len(rows)

def alone(rows):
    return 1.0

LIMIT = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules, which is not on the path."""
    for name, text in (("mine_1", WRITTEN), ("mine_2", "x = 1\nraise OSError('no disk')\n"), ("mine_3", "def (:\n")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", os.getcwd())])
    yield tmp_path
    for name in ("mine_1", "mine_2", "mine_3"):
        sys.modules.pop(name, None)


def settings(function: str, *admitted: str) -> dict[str, Any]:
    words = ("experiment=ci_tiny", "device=cpu", "tracker=none", "task=custom", "task.data=x.jsonl")
    return composed(*words, f"task.function={function}", f"allow_targets=[{','.join(admitted)}]")


def message(function: str, *admitted: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(settings(function, *admitted))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_function_in_the_working_folder_is_found_and_is_own_code(folder: Path) -> None:
    config = build_config(settings("mine_1:score", "mine_1"))
    assert isinstance(config.task, Custom)
    assert config.task.function is sys.modules["mine_1"].score
    assert config.task.head == "causal_lm"
    assert [source.path for source in code_sources(own_code(config.task))] == [str(folder / "mine_1.py")]
    assert config.resolved["task"]["function"] == "mine_1:score"


@pytest.mark.parametrize("admitted", [(), ("mine",), ("mine_2",)])
def test_a_module_that_is_not_admitted_is_never_imported(folder: Path, admitted: tuple[str, ...]) -> None:
    said = message("mine_1:score", *admitted)
    assert said == "task.function: mine_1:score is run only where its module is admitted: allow_targets=[mine_1]"
    assert not (folder / "imported").exists()
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("mine_1:scores", "task.function: mine_1 has no function scores (did you mean score?)"),
        ("mine_1:LIMIT", "task.function: mine_1 has no function, but int LIMIT"),
        ("mine_1:alone", "task: function: mine_1.alone must take (model, rows), it takes (rows)"),
        ("mine_1", "task.function: expected module:function, such as my_module:score, got 'mine_1'"),
        ("mine_2:score", "task.function: mine_2 cannot be imported: OSError: no disk (mine_2.py, line 2)"),
        ("mine_3:score", "task.function: mine_3 cannot be imported: SyntaxError: invalid syntax (mine_3.py, line 1)"),
        ("mine_4:score", "task.function: no module mine_4 in the working folder or on PYTHONPATH"),
    ],
)
def test_what_is_wrong_with_a_function_is_one_line(folder: Path, function: str, words: str) -> None:
    assert message(function, "mine_1", "mine_2", "mine_3", "mine_4") == words


def test_functions_of_a_task_inside_another_are_held_to_the_same(folder: Path) -> None:
    task = {"_target_": "objectives.tasks.custom.Custom", "data": "x.jsonl", "function": "mine_1:score"}
    node = {"_target_": "objectives.tasks.domains.Domains", "served": {"a": task}}
    with pytest.raises(ConfigError, match=r"^task\.served\.a\.function: mine_1:score is run only"):
        build(node, "task")


def test_the_settings_that_are_functions_are_known_by_their_type() -> None:
    assert functions_of(Custom) == functions_of(CustomRows) == {"function", "metric"}
    assert functions_of(Choice) == frozenset()
