"""Numbers are said as English says them, and no source is on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectives.assets.spoken_numbers import ROWS, SpokenNumbers, cardinal, drawn, ordinal
from objectives.assets.t5_numbers import read_rows


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (1987, "one thousand nine hundred eighty-seven"),
        (20_000, "twenty thousand"),
        (300_015, "three hundred thousand fifteen"),
        (7_000_001, "seven million one"),
    ],
)
def test_cardinals(number: int, words: str) -> None:
    assert cardinal(number) == words


def test_ordinals() -> None:
    days = "first second third fourth fifth eighth ninth eleventh twelfth thirteenth twentieth twenty-first thirtieth"
    assert [ordinal(day) for day in (1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 20, 21, 30)] == days.split()


def test_every_kind_is_said_as_english_says_it() -> None:
    said = dict(drawn(30_000))
    wanted = {
        "23:45": "fifteen to twelve in the evening",
        "11:35": "twenty-five to twelve in the morning",
        "12:15": "a quarter past twelve in the afternoon",
        "00:00": "twelve o'clock in the morning",
        "18:30": "half past six in the evening",
        "$1": "one dollar",
    }
    assert {source: said.get(source) for source in wanted} == wanted
    date = next(each for each in said if each.endswith("-11-29"))
    assert said[date] == f"the twenty-ninth of november {cardinal(int(date[:4]))}"
    price = next(each for each in said if each[0] == "€" and each.endswith(".01"))
    assert said[price].endswith(" and one cent")
    decimal = next(each for each in said if each[0] == "-" and each.endswith(".5"))
    assert said[decimal] == f"minus {cardinal(int(decimal[1:-2]))} point five"


def test_the_tables_are_disjoint_and_the_same_at_every_build(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        SpokenNumbers().build(tmp_path / name, lambda line: None)
    rows = {split: read_rows(tmp_path / "a" / f"{split}.tsv") for split in ROWS}
    assert {split: len(some) for split, some in rows.items()} == ROWS
    assert not {source for source, _ in rows["train"]} & {source for source, _ in rows["test"]}
    for split in ROWS:
        assert (tmp_path / "a" / f"{split}.tsv").read_bytes() == (tmp_path / "b" / f"{split}.tsv").read_bytes()
