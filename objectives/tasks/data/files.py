"""Reads rows from files: txt, csv, tsv, jsonl, json, parquet, Arrow (feather), folders of them, and data of assets.

A file is opened by Python, whatever library reads it, so that a study notes it as an input
(:mod:`objectives.tasks.reads`). The module is free of torch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from objectives.assets import AssetError, locate
from objectives.assets.store import MANIFEST
from objectives.errors import DataError, said
from objectives.models.inspection.folders import ASSET
from objectives.tasks.data.arrow_rows import STATE, is_cache, read_arrow, read_parquet
from objectives.tasks.data.file_states import State, state_of
from objectives.tasks.data.json_rows import read_json, read_jsonl
from objectives.tasks.data.rows import Read, Row, WrongRow, require_right
from objectives.tasks.data.tables import read_csv, read_tsv
from objectives.tasks.data.txt import Unit, read_txt

KEPT = 8
"""Files whose rows are kept: the studies of several tasks have some each."""

PROSE = {
    "authors", "changelog", "citation", "contributing", "contributors", "copying", "copyright", "licence", "license",
    "notice", "readme",
}  # fmt: skip
"""Names of txt files that tell about a folder: they hold none of its examples."""


def read_rows(path: str, key: str, unit: Unit = "line") -> Sequence[Row]:
    """Return the rows of a file or a folder, in the order of the files' names; nobody may change their values.

    ``path``: a file, a folder, ``asset:<name>/<file>``, or a folder that ``datasets`` saved. ``key``: the setting that
    names it, for messages. Files that are as they were are not read again, but opened. Raises DataError for what is
    missing, empty, of no known kind, or has wrong rows.
    """
    files = tuple(files_of(path, key))
    return _read_rows(files, tuple(map(state_of, files)), path, key, unit)


@lru_cache(maxsize=KEPT)
def _read_rows(files: Sequence[Path], _states: Sequence[State], path: str, key: str, unit: Unit) -> Sequence[Row]:
    rows: list[Row] = []
    wrong: list[WrongRow] = []
    for file in files:
        name = _shown(file, path)
        try:
            for row in _reader(file, unit)(file, name):
                (rows if isinstance(row, Row) else wrong).append(row)  # type: ignore[arg-type]
        except DataError as error:
            raise DataError(f"{key}: {error}") from error
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise DataError(f"{key}: cannot read {name}: {_why(error)}") from error
    require_right(key, wrong, len(rows) + len(wrong))
    if not rows:
        raise DataError(f"{key}: {path} holds no rows")
    return tuple(rows)


def _reader(file: Path, unit: Unit) -> Callable[[Path, str], Read]:
    kind = file.suffix.lower()
    return partial(read_txt, unit=unit) if kind == ".txt" else _READERS[kind]


def files_of(path: str, key: str) -> list[Path]:
    """Return the files that ``path`` names. Raises DataError where there is none that can be read."""
    place = _asset(path, key) if path.startswith(ASSET) else Path(path).expanduser()
    if place.is_dir():
        splits = place / "dataset_dict.json"
        if splits.is_file():
            names = json.loads(splits.read_text(encoding="utf-8")).get("splits", [])
            raise DataError(f"{key}: {path} holds the splits {', '.join(names)}; name one of them: {path}/{names[0]}")
        found = sorted(file for file in place.rglob("*") if file.suffix.lower() in _READERS and _is_data(file))
        if not found:
            raise DataError(f"{key}: {path} holds no file of a kind that is read ({', '.join(_READERS)})")
        if path.startswith(ASSET) and len(found) > 1:  # sets of their own, or the splits of one
            names = ", ".join(f"{path.rstrip('/')}/{file.relative_to(place).as_posix()}" for file in found)
            raise DataError(f"{key}: {path} holds {len(found)} files; name one of them: {names}")
        return found
    if not place.is_file():
        raise DataError(f"{key}: {path} not found{_near(place)}")
    if place.suffix.lower() not in _READERS:
        raise DataError(f"{key}: {path}: {', '.join(_READERS)} are read, got {place.suffix or 'no ending'}")
    return [place]


def _asset(path: str, key: str) -> Path:
    name, _, rest = path.removeprefix(ASSET).partition("/")
    try:
        return locate(name) / rest
    except AssetError as error:
        raise DataError(f"{key}: {error}") from error


def _is_data(file: Path) -> bool:
    """Return whether a file of a folder may hold examples: no hidden one, no description, no cache of ``datasets``."""
    if file.name.startswith(".") or file.name in (STATE, "dataset_info.json", MANIFEST):
        return False
    return not (file.suffix.lower() == ".txt" and file.stem.lower() in PROSE) and not is_cache(file)


def _near(place: Path) -> str:
    beside = [file.name for file in place.parent.glob("*") if file.suffix.lower() in _READERS and _is_data(file)]
    near = difflib.get_close_matches(place.name, beside, n=3, cutoff=0.4) or sorted(beside)[:3]
    return f"; beside it: {', '.join(near)}" if near else ""


def _shown(file: Path, path: str) -> str:
    """Return the name of a file as a person knows it: as given, or from the folder that was given."""
    base = Path(path).expanduser()
    return str(file.relative_to(base.parent)) if base.is_dir() and file.is_relative_to(base) else file.name


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8; save the file as UTF-8"
    return said(error)


_READERS: Mapping[str, Callable[[Path, str], Read]] = {
    ".txt": partial(read_txt, unit="line"), ".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl,
    ".json": read_json, ".parquet": read_parquet, ".arrow": read_arrow, ".feather": read_arrow,
}  # fmt: skip
