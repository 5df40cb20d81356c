"""Numbers, dates, times and prices, and how English says them: ``1987`` is one thousand nine hundred eighty-seven.

The rules are few, but all of them must be known for one whole answer to be right. So a model that has learned them
loses answers little by little as it is compressed.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import Say

ROWS = {"train": 40_000, "test": 1000}

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth",
}  # fmt: skip


def cardinal(number: int) -> str:
    """Return ``number``, 0 to 999,999,999, in words."""
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            return f"{cardinal(number // size)} {name}" + (f" {cardinal(rest)}" if rest else "")
    if number < len(_UNITS):
        return _UNITS[number]
    return _TENS[number // 10] + (f"-{_UNITS[number % 10]}" if number % 10 else "")


def ordinal(number: int) -> str:
    """Return the place ``number`` in words: ``twenty-ninth``."""
    before, hyphen, last = cardinal(number).rpartition("-")
    return before + hyphen + _ORDINALS.get(last, f"{last}th")


def _number(draw: random.Random) -> tuple[str, str]:
    number = draw.randrange(10 ** draw.randint(1, 7))
    return f"{number:,}" if draw.random() < 0.3 else str(number), cardinal(number)


def _decimal(draw: random.Random) -> tuple[str, str]:
    whole, digits = draw.randrange(10 ** draw.randint(1, 3)), str(draw.randrange(1, 1000))
    sign = draw.random() < 0.3
    said = " ".join([cardinal(whole), "point", *(_UNITS[int(digit)] for digit in digits)])
    return f"{'-' * sign}{whole}.{digits}", "minus " * sign + said


def _date(draw: random.Random) -> tuple[str, str]:
    year, month = draw.randint(1600, 2099), draw.randint(1, 12)
    day = draw.randint(1, calendar.monthrange(year, month)[1])
    said = f"the {ordinal(day)} of {calendar.month_name[month].lower()} {cardinal(year)}"
    return f"{year}-{month:02}-{day:02}", said


def _time(draw: random.Random) -> tuple[str, str]:
    hour, minute = draw.randrange(24), draw.randrange(60)
    twelve = cardinal(hour % 12 or 12)
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    words = {0: f"{twelve} o'clock", 15: f"a quarter past {twelve}", 30: f"half past {twelve}"}
    late = f"{cardinal(60 - minute)} to {cardinal((hour + 1) % 12 or 12)}"
    usual = f"{cardinal(minute)} past {twelve}" if minute < 30 else late
    return f"{hour:02}:{minute:02}", f"{words.get(minute, usual)} {part}"


def _price(draw: random.Random) -> tuple[str, str]:
    sign, name = draw.choice((("$", "dollar"), ("€", "euro")))
    whole, cents = draw.randrange(1, 10 ** draw.randint(1, 4)), draw.choice((0, draw.randrange(1, 100)))
    said = _counted(whole, name) + (f" and {_counted(cents, 'cent')}" if cents else "")
    return f"{sign}{whole}.{cents:02}" if cents else f"{sign}{whole}", said


def _counted(number: int, name: str) -> str:
    return f"{cardinal(number)} {name}{'s' * (number != 1)}"


_KINDS: tuple[Callable[[random.Random], tuple[str, str]], ...] = (_number, _decimal, _date, _time, _price)


def drawn(rows: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return so many different sources with what they are in words, of kinds at random."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < rows:
        source, target = draw.choice(_KINDS)(draw)
        found.setdefault(source, target)
    return list(found.items())


@dataclass(frozen=True)
class SpokenNumbers:
    """The tables ``train.tsv`` and ``test.tsv``: source, target; no source is in both."""

    name: str = "numbers"
    version: str = "1"
    fetched_by_hand: bool = False

    def build(self, into: Path, say: Say) -> None:
        """Draw the rows and write them."""
        rows = drawn(sum(ROWS.values()))
        random.Random(0).shuffle(rows)
        for split, count in ROWS.items():
            some, rows = rows[:count], rows[count:]
            text = "".join(f"{source}\t{target}\n" for source, target in [("source", "target"), *some])
            (into / f"{split}.tsv").write_text(text, encoding="utf-8")
            say(f"{split}.tsv: {count} numbers, dates, times and prices in words")


ASSET = SpokenNumbers()
