"""The blocks of ``docs/python.md``, run as they stand over the small model of ``tests/stored``, in small studies."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import paretune

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
QUICK: dict[str, Any] = {
    "executor": "in_process", "n_trials": 2, "confirm": False, "tracker": "none",
    "device": {"kind": "cpu", "threads": 1}, "workload": {"prompt_tokens": 8, "new_tokens": 2},
    "timing": {"warmups": 1, "min_rounds": 3, "max_rounds": 3, "min_seconds": 0.0, "max_seconds": 0.2, "patience": 0.2},
    "task.tokens": 128,
}  # fmt: skip
"""Settings that a page does not show: they make a study small, and change nothing that it says."""
TEXT = {"task.stride": 64, "task.calibration_tokens": 128}


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names after all blocks, each run in the reader's folder after those above it."""
    folder, search = tmp_path_factory.mktemp("reader"), paretune.search
    shutil.copytree(ROOT / "tests" / "stored" / "model", folder / "my-model")
    lines = (ROOT / "tests" / "stored" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.dumps({"text": json.loads(line)["text"]}) for line in lines]
    (folder / "texts.jsonl").write_text("\n".join(texts), encoding="utf-8")
    found: dict[str, Any] = {"studies": []}

    def small(*arguments: Any, **asked: Any) -> paretune.Study:
        of_kind = {} if "task" in asked else TEXT
        found["studies"].append(search(*arguments, **{**QUICK, **of_kind, **asked}))
        return found["studies"][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["paretune"])
        patch.setattr(paretune, "search", small, raising=False)
        for block in BLOCKS:
            exec(compile(block, "docs/python.md", "exec"), found)
        yield found


def test_every_block_runs_and_the_last_study_is_that_of_the_rows_in_memory(scope: dict[str, Any]) -> None:
    first, second = scope["studies"]
    assert first.name != second.name == scope["study"].name
    assert len(first.trials) == len(second.trials) == 2
    assert scope["served"].tokenizer is not None


def test_all_that_the_page_names_is_there(scope: dict[str, Any]) -> None:
    named = set(re.findall(r"`?paretune\.(\w+)", PAGE)) - {"search"}
    assert {"open", "load", "ConfigError", "ParetuneError"} <= named
    assert all(hasattr(paretune, name) for name in named)
    members = set(re.findall(r"study\.(\w+)", PAGE))
    assert all(hasattr(scope["study"], name) for name in members)


def test_the_columns_that_are_guessed_are_those_that_the_page_lists() -> None:
    from paretune.kinds import GUESSED

    (said,) = re.findall(r"leave no choice: (.*?); and no others", PAGE, re.DOTALL)
    assert {frozenset(re.findall(r"`(\w+)`", part)) for part in said.split(";")} == set(GUESSED)
