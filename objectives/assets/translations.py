"""Parallel texts by people: the strings of Django's pages in German, French and Chinese, taken from its wheel."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import AssetError, Say
from objectives.assets.wheels import download_wheel, extract

WHEEL = "Django==5.2"
SHA256 = "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83"
LICENCE = "Django-5.2.dist-info/LICENSE"
_MAGIC = 0x950412DE

LANGUAGES = {"de": "de", "fr": "fr", "zh": "zh_Hans"}
"""Names of the files that are written, with the folders of the catalogues."""


@dataclass(frozen=True)
class Translations:
    """A file for each language, ``de.jsonl``, ``fr.jsonl``, ``zh.jsonl``: source, target and the app they are from.

    A source that several apps have is there once, so that it cannot fall on both sides of a split.
    """

    name: str = "translations"
    version: str = "5.2"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the wheel, and write the pairs of its compiled catalogues."""
        say(f"downloading {WHEEL} (8 MB)")
        wheel = download_wheel(WHEEL, SHA256, into.parent)
        with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
            extract(wheel, "django/", Path(scratch))
            for language, folder in LANGUAGES.items():
                rows = _rows(Path(scratch), folder)
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())
                (into / f"{language}.jsonl").write_text(text, encoding="utf-8")
        extract(wheel, LICENCE, into)


def _rows(root: Path, folder: str) -> dict[str, dict[str, str]]:
    """Return the pairs of all catalogues of a language, by their source, the first of several."""
    rows: dict[str, dict[str, str]] = {}
    for file in sorted(root.glob(f"**/locale/{folder}/LC_MESSAGES/*.mo")):
        app = file.relative_to(root).parts[-5]
        for source, target in pairs(file):
            rows.setdefault(source, {"source": source, "target": target, "app": app})
    return rows


def strings(root: Path, folder: str) -> dict[str, str]:
    """Return the translations of all catalogues of a language below ``root``, by their source, the first of several."""
    return {source: row["target"] for source, row in _rows(root, folder).items()}


def pairs(file: Path) -> Iterator[tuple[str, str]]:
    """Yield source and translation of every entry of a compiled catalogue that is filled and has no plural.

    Raises AssetError for a file of another format.
    https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
    """
    data = file.read_bytes()
    if len(data) < 20 or struct.unpack_from("<I", data)[0] != _MAGIC:
        raise AssetError(f"{file.name} is no compiled catalogue")
    count, sources, targets = struct.unpack_from("<3I", data, 8)
    for place in range(count):
        source, target = (_text(data, table + 8 * place) for table in (sources, targets))
        source = source.rpartition("\4")[2]  # before it stands the context
        if source.strip() and target.strip() and "\0" not in source:
            yield source, target


def _text(data: bytes, entry: int) -> str:
    length, start = struct.unpack_from("<2I", data, entry)
    return data[start : start + length].decode("utf-8")


ASSET = Translations()
