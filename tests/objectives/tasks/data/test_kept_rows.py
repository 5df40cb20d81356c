"""Rows that a program holds become one file of their content, which is read as they were given."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.errors import DataError
from objectives.tasks.data.files import read_rows
from objectives.tasks.data.kept_rows import keep_rows

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
rows = st.lists(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=3), min_size=1, max_size=3)


@given(rows)
def test_rows_are_read_as_they_were_given(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    file = keep_rows(rows, "data", tmp_path_factory.getbasetemp() / "rows")
    assert [row.values for row in read_rows(str(file), "task.data")] == rows


def test_equal_rows_are_one_file_that_is_written_once(tmp_path: Path) -> None:
    first = keep_rows([{"text": "Grüße"}], "data", tmp_path)
    written = first.stat().st_mtime_ns
    assert keep_rows(iter([{"text": "Grüße"}]), "data", tmp_path) == first
    assert first.stat().st_mtime_ns == written
    assert keep_rows([{"text": "Gruß"}], "data", tmp_path) != first
    assert first.read_text(encoding="utf-8") == '{"text": "Grüße"}\n'
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_was_changed_is_written_again(tmp_path: Path) -> None:
    file = keep_rows([{"text": "a"}], "data", tmp_path)
    file.write_text("{}", encoding="utf-8")
    assert keep_rows([{"text": "a"}], "data", tmp_path) == file
    assert file.read_text(encoding="utf-8") == '{"text": "a"}\n'


def test_numbers_of_numpy_are_numbers_and_missing_ones_null(tmp_path: Path) -> None:
    given = {"label": np.int64(2), "score": np.float32(0.5), "list": np.array(["a", "b"]), "none": math.nan}
    (row,) = read_rows(str(keep_rows([given], "data", tmp_path)), "task.data")
    assert row.values == {"label": 2, "score": 0.5, "list": ["a", "b"], "none": None}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"data: no rows"),
        (["a text"], r"data: row 0 is no mapping from columns to values, but str 'a text'"),
        ([{"a": 1}, {"a": date(2026, 1, 2)}], r"data: row 1, 'a' has the date '2026-01-02'; texts, numbers"),
        ([{"a": math.inf}], r"data: row 0, 'a' has the float 'inf'"),
        ([{1: "a"}], r"data: row 0 has a column called 1"),
    ],
)
def test_what_json_does_not_hold_is_refused_with_its_place(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        keep_rows(rows, "data", tmp_path)
    assert list(tmp_path.iterdir()) == []
