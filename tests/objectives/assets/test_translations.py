"""Compiled catalogues are read as gettext reads them."""

from __future__ import annotations

import gettext
import struct
from pathlib import Path

import pytest

from objectives.assets.asset import AssetError
from objectives.assets.translations import pairs

ENTRIES = {
    "": "Content-Type: text/plain; charset=UTF-8\n", "yes": "ja", "menu\4open": "öffnen", "empty": "",
    "one\0many": "eins\0viele", "no": "不",
}  # fmt: skip


def compiled(file: Path) -> Path:
    """Write the catalogue as msgfmt does."""
    entries = sorted((source.encode(), target.encode()) for source, target in ENTRIES.items())
    count, start = len(entries), 28 + 16 * len(ENTRIES)
    tables, texts = [b"", b""], b""
    for column in (0, 1):
        for entry in entries:
            tables[column] += struct.pack("<2I", len(entry[column]), start + len(texts))
            texts += entry[column] + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, start)
    file.write_bytes(header + tables[0] + tables[1] + texts)
    return file


def test_pairs_are_what_gettext_translates(tmp_path: Path) -> None:
    file = compiled(tmp_path / "a.mo")
    with file.open("rb") as stream:
        theirs = gettext.GNUTranslations(stream)
    found = dict(pairs(file))
    assert found == {"yes": "ja", "open": "öffnen", "no": "不"}
    assert all(theirs.gettext(source) == target for source, target in found.items() if source != "open")
    assert theirs.pgettext("menu", "open") == found["open"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mo").write_bytes(b"msgid" * 9)
    with pytest.raises(AssetError, match=r"a\.mo is no compiled catalogue"):
        list(pairs(tmp_path / "a.mo"))
