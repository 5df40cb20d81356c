"""Texts to read, as plain documents in a fixed order: what tasks score and what calibration sees."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Document:
    """One text; ``summary`` is its human-written summary where there is one."""

    id: str
    text: str
    summary: str | None = None


@runtime_checkable
class Corpus(Protocol):
    """A source of documents."""

    @abstractmethod
    def documents(self) -> tuple[Document, ...]:
        """Return all documents, in the same order at every call."""
