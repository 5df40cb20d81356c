"""Reads parquet files and what ``datasets`` saves, with pyarrow. The module is free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives.tasks.data.rows import Read, Row

_FILE = b"ARROW1"
"""The first bytes of an Arrow file (feather, version 2), which ends with an index; a stream has none."""

STATE = "state.json"
"""The file in which ``datasets`` notes which of a folder's files are its data; others are caches."""


def read_parquet(file: Path, name: str) -> Read:
    """Yield the rows of a parquet file."""
    from pyarrow.parquet import ParquetFile

    with file.open("rb") as stream:
        yield from _rows(ParquetFile(stream).read(), name)


def read_arrow(file: Path, name: str) -> Read:
    """Yield the rows of an Arrow stream, which ``datasets`` writes, or of an Arrow file, which is feather."""
    from pyarrow.ipc import open_file, open_stream

    with file.open("rb") as stream:
        opened = open_file if stream.read(len(_FILE)) == _FILE else open_stream
        stream.seek(0)
        yield from _rows(opened(stream).read_all(), name)


def is_cache(file: Path) -> bool:
    """Return whether ``file`` lies in a folder of ``datasets`` that does not count it among its data."""
    state = file.parent / STATE
    if not state.is_file():
        return False
    try:
        described = json.loads(state.read_text(encoding="utf-8"))
    except ValueError:
        return False
    if not isinstance(described, dict):  # a file of a user's that is called so
        return False
    listed = described.get("_data_files")
    if not listed:
        return file.name.startswith("cache-")
    return file.name not in {each["filename"] for each in listed}


def _rows(table: Any, name: str) -> Read:
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row({key: _named(value, features.get(key)) for key, value in values.items()}, name, number, "row")


def _named(value: Any, feature: Any) -> Any:
    """Return ``value`` with the names of its classes in place of their numbers, as ``datasets`` describes them.

    ``feature``: of labels (``names``), of a list (``feature``, or a list of one), of an object by its keys, or None.
    """
    if value is None or feature is None:
        return value
    if isinstance(feature, list):
        return [_named(each, feature[0]) for each in value]
    names, inner = feature.get("names"), feature.get("feature")
    if isinstance(names, list):
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
    if isinstance(value, list):
        return [_named(each, inner) for each in value]
    if isinstance(value, dict):  # of a list of objects too, which is kept as an object of lists
        fields = {key: [each] for key, each in inner.items()} if isinstance(inner, Mapping) else feature
        return {key: _named(each, fields.get(key)) for key, each in value.items()}
    return value
