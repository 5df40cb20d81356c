"""Guesses the kind of task from the columns of the rows, where that is clear."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from omegaconf import OmegaConf

from objectives.errors import ObjectiveError
from objectives.tasks.data.files import files_of, read_rows
from objectives.tasks.data.rows import columns_of
from search.commands.run import CONF
from search.errors import ConfigError

GUESSED: Mapping[frozenset[str], str] = {
    frozenset({"text"}): "text",
    frozenset({"text", "choices", "answer"}): "choice",
    frozenset({"text", "target"}): "generation",
    frozenset({"text", "label"}): "classification",
    frozenset({"words", "tags"}): "token_classification",
    frozenset({"question", "context", "answer"}): "question_answering",
    frozenset({"query", "text"}): "information_retrieval",
    frozenset({"head", "relation", "tail"}): "link_prediction",
}
"""The kind of task by the columns of its rows: those that the kind reads by default, and no others."""

NAMES_OF_ROWS = frozenset({"id", "idx", "index", "guid"})
"""Columns that name a row and say nothing about it."""


def groups() -> set[str]:
    """Return the keys that choose a yaml: the folders of ``conf/``."""
    return {folder.name for folder in CONF.iterdir() if folder.is_dir()}


def kinds() -> list[str]:
    """Return the tasks that take rows of a user's own: those whose yaml asks for ``data``."""
    files = sorted((CONF / "task").glob("*.yaml"))
    return [file.stem for file in files if OmegaConf.is_missing(OmegaConf.load(file), "data")]


def task_of(columns: Collection[str], key: str = "task") -> str:
    """Return the kind of task for rows with these columns. Raises ConfigError, at ``key``, where that is not clear."""
    kind = GUESSED.get(frozenset(columns) - NAMES_OF_ROWS)
    if kind is None:
        raise ConfigError(
            f"{key}: the columns {', '.join(columns)} do not tell which kind is meant; give one of "
            f"{', '.join(kinds())} with its columns by name, as "
            "{'kind': 'choice', 'text': 'question', 'answer': 'label'}"
        )
    return kind


def columns(data: str, key: str = "task.data") -> list[str]:
    """Return the columns of a user's file. Raises ConfigError, at ``key``, where it cannot be read."""
    try:
        if all(file.suffix.lower() == ".txt" for file in files_of(data, key)):
            return ["text"]
        return columns_of(read_rows(data, key))
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error
