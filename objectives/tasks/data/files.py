"""Reads rows from files: txt, csv, tsv, jsonl, json, parquet, Arrow, folders of them, and the data of assets.

A file is opened by Python, whatever library reads it, so that a study notes it as an input
(:mod:`objectives.tasks.reads`). The module is free of torch.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from objectives.assets import AssetError, locate
from objectives.errors import DataError, said
from objectives.models.inspection.folders import ASSET
from objectives.tasks.data.file_states import State, state_of
from objectives.tasks.data.rows import Row, WrongRow, require_right

Unit = Literal["line", "section", "document"]
"""The kinds of example that a txt file may hold: lines that are not empty, sections, or the whole file."""
SECTION = 4000
"""Characters after which a section ends: at the next empty line, or at the end of a line after twice as many."""

KEPT = 8
"""Files whose rows are kept: the studies of several tasks have some each."""
DEPTH = 64
"""Lists and objects of JSON that may lie in each other."""
_TOO_DEEP = f"has lists or objects that lie more than {DEPTH} deep in each other"
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD]")

Read = Iterator[Row | WrongRow]


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
            for row in _READERS[file.suffix.lower()](file, name, unit):
                (rows if isinstance(row, Row) else wrong).append(row)  # type: ignore[arg-type]
        except DataError as error:
            raise DataError(f"{key}: {error}") from error
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise DataError(f"{key}: cannot read {name}: {_why(error)}") from error
    require_right(key, wrong, len(rows) + len(wrong))
    if not rows:
        raise DataError(f"{key}: {path} holds no rows")
    return tuple(rows)


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
    """Return whether a file of a folder is no hidden one and no description that ``datasets`` wrote."""
    return not file.name.startswith(".") and file.name not in ("state.json", "dataset_info.json")


def _near(place: Path) -> str:
    beside = [file.name for file in place.parent.glob("*") if file.suffix.lower() in _READERS]
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


# ---- one reader a kind


def _text(file: Path) -> str:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return stream.read()


def _txt(file: Path, name: str, unit: Unit) -> Read:
    text = _text(file)
    parts = {"line": _lines, "section": _sections, "document": _document}[unit](text)
    for number, part in parts:
        if part.strip():
            yield Row({"text": part}, name, number)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(text.splitlines(), start=1)


def _document(text: str) -> Iterator[tuple[int, str]]:
    yield 1, text


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line of every section, and its text without the empty lines at its end."""
    lines: list[str] = []
    first, size = 1, 0
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        lines.append(line)
        size += len(line)
        if size >= 2 * SECTION or (size >= SECTION and not line.strip()):
            yield first, "".join(lines).rstrip()
            lines, first, size = [], number + 1, 0
    yield first, "".join(lines).rstrip()


def _csv(file: Path, name: str, _unit: Unit) -> Read:
    yield from _table(_text(file), name, delimiter=",", strict=True)


def _tsv(file: Path, name: str, _unit: Unit) -> Read:
    """Read quoted fields where all quotes fit, as spreadsheets write them; else quotes are characters like others.

    Where every line is a row by itself, no quote reaches over several: in sentences that were split, it would.
    """
    text = _text(file)
    quoted = list(_table(text, name, delimiter="\t", strict=True))
    plain = list(_table(text, name, delimiter="\t", quoting=csv.QUOTE_NONE))
    fits, is_plain = (not any(isinstance(row, WrongRow) for row in rows) for rows in (quoted, plain))
    yield from quoted if fits and (len(quoted) == len(plain) or not is_plain) else plain


def _table(text: str, name: str, **dialect: Any) -> Read:
    csv.field_size_limit(2**31 - 1)  # documents are longer than its 128 kB
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    header: list[str] = []
    try:
        for fields in reader:
            if not header:
                header = _checked_header([field.strip() for field in fields], name)
            elif len(fields) == len(header):
                yield Row(dict(zip(header, fields)), name, reader.line_num)
            elif fields:
                yield WrongRow(name, reader.line_num, f"has {len(fields)} fields, the header {len(header)}")
    except csv.Error as error:
        yield WrongRow(name, reader.line_num, f"is no row of a table ({error})")


def _checked_header(header: list[str], name: str) -> list[str]:
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise DataError(f"{name}: its first line, the header, names the column {twice[0]!r} twice")
    return header


def _jsonl(file: Path, name: str, _unit: Unit) -> Read:
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            yield _object(line, name, number)


def _object(line: str, name: str, number: int) -> Row | WrongRow:
    try:
        value = json.loads(line)
    except ValueError as error:
        return WrongRow(name, number, f"is no JSON ({error})")
    except RecursionError:
        return WrongRow(name, number, _TOO_DEEP)
    return _row(value, name, number, _is_suspect(line))


def _is_suspect(text: str) -> bool:
    """Return whether what a JSON text holds must be looked through: for depth it needs brackets, for halves escapes."""
    return text.count("[") + text.count("{") > DEPTH or _ESCAPED_HALF.search(text) is not None


def _row(value: Any, name: str, number: int, is_suspect: bool) -> Row | WrongRow:
    if not isinstance(value, dict):
        return WrongRow(name, number, f"is a JSON {type(value).__name__}, not an object with columns")
    if not is_suspect:
        return Row(value, name, number)
    if _is_deeper(value, DEPTH):
        return WrongRow(name, number, _TOO_DEEP)
    half = _HALF.search(json.dumps(value, ensure_ascii=False))
    if half is not None:
        return WrongRow(name, number, f"holds half of a surrogate pair (\\u{ord(half[0]):04x}), which is no character")
    return Row(value, name, number)


def _is_deeper(value: Any, depth: int) -> bool:
    """Return whether lists and objects lie in each other more than ``depth`` deep."""
    if not isinstance(value, (dict, list)):
        return False
    return depth == 0 or any(
        _is_deeper(each, depth - 1) for each in (value.values() if isinstance(value, dict) else value)
    )


def _json(file: Path, name: str, _unit: Unit) -> Read:
    try:
        text = _text(file)
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it {_TOO_DEEP}") from None
    if not isinstance(value, list):
        raise ValueError(f"a list of objects expected, got {type(value).__name__}; one object a line is a .jsonl")
    is_suspect = _is_suspect(text)
    for number, each in enumerate(value, start=1):
        yield _row(each, name, number, is_suspect)


def _parquet(file: Path, name: str, _unit: Unit) -> Read:
    from pyarrow.parquet import ParquetFile

    with file.open("rb") as stream:
        yield from _arrow_rows(ParquetFile(stream).read(), name)


def _arrow(file: Path, name: str, _unit: Unit) -> Read:
    """Read what ``datasets`` saves: an Arrow stream whose schema names the classes of its labels."""
    from pyarrow.ipc import open_stream

    with file.open("rb") as stream:
        yield from _arrow_rows(open_stream(stream).read_all(), name)


def _arrow_rows(table: Any, name: str) -> Read:
    classes = _class_names(table.schema.metadata or {})
    for number, values in enumerate(table.to_pylist(), start=1):
        named = {key: names[values[key]] for key, names in classes.items() if _is_class(values.get(key), names)}
        yield Row({**values, **named}, name, number)


def _is_class(value: Any, names: list[str]) -> bool:
    return isinstance(value, int) and 0 <= value < len(names)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes of every column that ``datasets`` describes as labels."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {name: each["names"] for name, each in features.items() if isinstance(each, dict) and "names" in each}


_READERS: Mapping[str, Callable[[Path, str, Unit], Read]] = {
    ".txt": _txt, ".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".arrow": _arrow,
}  # fmt: skip
