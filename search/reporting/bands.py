"""Finds the metrics that have to stay within a range among the columns of a table.

Columns have no dots (``length_ratio_least_summary``), and tasks may be called what they like. So a lower end is only
what stands beside a value and an upper end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LEAST = re.compile(r"_least(?=_|$)")


@dataclass(frozen=True)
class BandColumns:
    """The columns of a metric's value, and of its lower and upper end."""

    value: str
    least: str
    most: str


def band_columns(rows: Iterable[Mapping[str, Any]]) -> list[BandColumns]:
    """Return the columns of every metric that has a band in any of the rows, in their order."""
    keys = dict.fromkeys(key for row in rows for key in row)
    found = []
    for key in keys:
        for mark in _LEAST.finditer(key):
            before, after = key[: mark.start()], key[mark.end() :]
            each = BandColumns(f"{before}{after}", key, f"{before}_most{after}")
            if each.value in keys and each.most in keys:
                found.append(each)
    return found
