"""A corpus of the test's own: the texts of ``texts.jsonl`` beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from objectives.tasks.corpora import Document


@dataclass(frozen=True)
class StoredTexts:
    """Pages that do not change with the interpreter."""

    def documents(self) -> tuple[Document, ...]:
        """Return all pages, in the order of the file."""
        lines = (Path(__file__).parent / "texts.jsonl").read_text(encoding="utf-8").splitlines()
        return tuple(Document(**json.loads(line)) for line in lines)
