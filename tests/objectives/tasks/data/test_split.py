"""The same rows calibrate whatever their order, none of them is scored, and a draw depends on its seed alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from objectives.errors import DataError
from objectives.tasks.data.split import divide

TEXTS = [f"text {number}" for number in range(40)]


def write(file: Path, texts: list[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def texts(rows: Any) -> list[str]:
    return [row.values["text"] for row in rows]


def test_one_file_is_divided_by_content_and_that_is_said(tmp_path: Path) -> None:
    found = divide(write(tmp_path / "a.jsonl", TEXTS), None, rows=8)
    assert len(found.calibration) == 8
    assert sorted(texts(found.calibration) + texts(found.scored)) == sorted(TEXTS)
    assert "8 rows of" in found.remark
    assert "32 others are scored" in found.remark
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    again = divide(write(tmp_path / "b.jsonl", shuffled), None, rows=8)
    assert set(texts(again.calibration)) == set(texts(found.calibration))


def test_copies_of_a_row_fall_on_one_side(tmp_path: Path) -> None:
    found = divide(write(tmp_path / "a.jsonl", TEXTS * 3), None, rows=8)
    assert not set(texts(found.calibration)) & set(texts(found.scored))
    assert len(found.calibration) == 24


def test_at_most_half_of_a_small_file_calibrates(tmp_path: Path) -> None:
    assert len(divide(write(tmp_path / "a.jsonl", TEXTS[:5]), None, rows=64).calibration) == 2
    with pytest.raises(DataError, match=r"has no two rows whose texts differ.*task.calibration"):
        divide(write(tmp_path / "b.jsonl", ["x", "x"]), None, rows=64)


def test_rows_of_the_same_text_fall_on_one_side_whatever_else_they_hold(tmp_path: Path) -> None:
    rows = [
        {"id": number, "text": f"text  {number % 10}" if number < 20 else f"text {number % 10} "}
        for number in range(40)
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = divide(str(file), None, rows=64, texts=texts)
    sides = [{" ".join(text.split()) for text in texts(some)} for some in (found.calibration, found.scored)]
    assert list(map(len, sides)) == [5, 5]
    assert not sides[0] & sides[1]
    assert len(found.calibration) + len(found.scored) == 40


def test_a_txt_of_one_section_is_divided_by_line(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("Hello world, this is a short text.\nAnother line here.\n\nA third.\n")
    found = divide(str(file), None, rows=64, unit="section")
    assert sorted(texts(found.calibration) + texts(found.scored)) == sorted(
        file.read_text().split("\n")[i] for i in (0, 1, 3)
    )


def test_a_row_of_both_files_is_refused_with_its_places(tmp_path: Path) -> None:
    test, train = write(tmp_path / "test.jsonl", TEXTS[:9]), write(tmp_path / "train.jsonl", TEXTS[7:])
    with pytest.raises(
        DataError, match=r"2 of 9 scored rows calibrate too: test\.jsonl, line 8 = train\.jsonl, line 1, "
    ):
        divide(test, train, rows=64)


def test_two_files_stay_apart_and_a_limit_draws_by_its_seed(tmp_path: Path) -> None:
    test, train = write(tmp_path / "test.jsonl", TEXTS[:20]), write(tmp_path / "train.jsonl", TEXTS[20:])
    found = [divide(test, train, rows=5, limit=7, seed=seed) for seed in (0, 0, 1)]
    assert [len(each.calibration) for each in found] == [5, 5, 5]
    assert set(texts(found[0].calibration)) <= set(TEXTS[20:])
    assert texts(found[0].scored) == texts(found[1].scored) != texts(found[2].scored)
    assert texts(found[0].scored) == sorted(texts(found[0].scored), key=TEXTS.index)
    assert found[0].remark == ""


def test_files_of_one_name_are_told_apart_by_the_settings_that_name_them(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one, other = write(tmp_path / "a" / "test.jsonl", TEXTS[:4]), write(tmp_path / "b" / "test.jsonl", TEXTS[3:5])
    with pytest.raises(DataError, match=r"too: line 4 of task\.data = line 1 of task\.calibration; take them"):
        divide(one, other, rows=64)


def test_a_row_of_both_files_is_refused_by_what_a_model_reads_of_it(tmp_path: Path) -> None:
    test, train = (
        write(tmp_path / "test.jsonl", TEXTS[:4]),
        write(tmp_path / "train.jsonl", [f"  {TEXTS[2]} ", "other"]),
    )
    assert len(divide(test, train, rows=64).scored) == 4
    with pytest.raises(
        DataError, match=r"1 of 4 scored rows calibrate too: test\.jsonl, line 3 = train\.jsonl, line 1"
    ):
        divide(test, train, rows=64, texts=texts)
