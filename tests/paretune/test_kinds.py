"""What is clear is guessed from columns and heads, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from paretune.kinds import GUESSED, columns, groups, kinds, task_of
from search.commands.run import CONF
from search.errors import ConfigError
from search.space.instantiate import build


@pytest.mark.parametrize("named", GUESSED, ids=lambda named: ",".join(sorted(named)))
def test_rows_with_the_columns_that_a_kind_reads_by_default_are_of_that_kind(named: frozenset[str]) -> None:
    kind = task_of(named)
    made = OmegaConf.to_container(OmegaConf.load(CONF / "task" / f"{kind}.yaml"))
    assert isinstance(made, dict)
    read = {value for key, value in made.items() if key.removeprefix("column_") == value}
    assert read - {"relevant"} == named  # with a file of documents alone
    own = {key: value for key, value in made.items() if not str(value).startswith("${")}
    build({**own, "data": "x"}, "task")


def test_rows_with_other_columns_are_of_no_kind_and_the_kinds_are_listed() -> None:
    with pytest.raises(
        ConfigError, match=r"task: the columns text, stars do not tell .* one of .*choice.*generation.*text"
    ):
        task_of(["text", "stars"])
    assert task_of(["id", "text", "label"]) == "classification"


def test_kinds_are_the_tasks_that_ask_for_data() -> None:
    assert {"text", "choice", "generation", "link_prediction"} <= set(kinds())
    assert not {"boolq", "domains", "retrieval"} & set(kinds())
    assert set(GUESSED.values()) <= set(kinds())


def test_groups_are_the_folders_of_yaml_files() -> None:
    assert {"task", "model", "experiment", "pruning", "space"} <= groups()
    assert "home" not in groups()


def test_columns_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff not UTF-8, and not read")
    (tmp_path / "a.csv").write_text("question,label\na,b\n", encoding="utf-8")
    assert columns(str(tmp_path / "a.txt")) == ["text"]
    assert columns(str(tmp_path / "a.csv")) == ["question", "label"]
    with pytest.raises(ConfigError, match=r"task\.data: .*b\.csv not found; beside it: a\.csv"):
        columns(str(tmp_path / "b.csv"))
