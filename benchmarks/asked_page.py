"""The end of a benchmark that compares with what is asked: print every line, and write its figures and its page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from objectives.devices.cpu import Cpu

Line = tuple[str, str, bool]
"""What is asked, what was measured, and whether it is kept."""


def run(
    about: str | None,
    arguments: Sequence[str] | None,
    measured: Callable[[Path, bool], Any],
    lines_of: Callable[[Any], Iterable[Line]],
    page: Callable[[Mapping[str, Any]], str],
    out: Path,
) -> int:
    """Measure on one thread and print what is kept; write ``out`` as json and md unless ``--check`` is given.

    ``about``: the text of ``--help``; ``measured``: called with a folder and whether the short form is wanted. Return
    1 where a line is not kept.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args(arguments).check
    Cpu(threads=1).start()
    with TemporaryDirectory() as home:
        rows = measured(Path(home), check)
    lines = list(lines_of(rows))
    for what, told, reached in lines:
        print(f"{'kept' if reached else 'NOT KEPT'}: {what}: {told}")
    if not check:
        state = {"machine": Cpu().describe()["device_name"], "rows": rows}
        out.with_suffix(".json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(page(state), encoding="utf-8")
    return 0 if all(reached for _, _, reached in lines) else 1


def table(what: str, measured: str, lines: Iterable[Line]) -> list[str]:
    """Return the lines of a table in Markdown."""
    rows = [f"| {asked} | {told} | {'yes' if kept else 'NO'} |" for asked, told, kept in lines]
    return [f"| {what} | {measured} | kept |", "|---|---|---|", *rows]
