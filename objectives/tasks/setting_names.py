"""Names the settings of a task that is one of several as the user writes them: ``tasks.news.text`` for ``task.text``.

A task writes its messages as if it stood alone. Whoever holds several tasks renames what a message says of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from objectives.errors import ObjectiveError
from objectives.protocols.task import Task
from objectives.settings import settings_of

_SETTING = re.compile(r"(?<![\w./\\-])task\.([a-z]\w*)")
_ALONE = re.compile(r"^task: ")


def renamed(text: str, task: Task, place: str) -> str:
    """Return a message of ``task`` with its settings below ``place``, which it names in any case.

    Other words that begin alike, as the file ``task.jsonl`` does, stay as they are.
    """
    known = settings_of(type(task))

    def below(found: re.Match[str]) -> str:
        return f"{place}.{found[1]}" if found[1] in known or found.start() == 0 else found[0]

    moved = _ALONE.sub(f"{place}: ", _SETTING.sub(below, text))
    return moved if moved.startswith((f"{place}.", f"{place}:")) else f"{place}: {moved}"


@contextmanager
def named_below(place: str, task: Task) -> Iterator[None]:
    """Rename the settings in the message of an ObjectiveError that ``task`` raises; with no ``place`` leave it."""
    try:
        yield
    except ObjectiveError as error:
        if place:
            error.args = (renamed(str(error), task, place),)
        raise
