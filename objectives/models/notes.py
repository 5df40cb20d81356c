"""Reads and writes the stored form of notes, a code with a text. Sentences of older versions get their codes here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from objectives.types import Note, NoteCode

_BEGINNINGS = {
    "contended": NoteCode.CONTENDED,
    "threads waited": NoteCode.WAITED,
    "speed known": NoteCode.IMPRECISE,
    "drifted": NoteCode.DRIFTED,
    "the GPU lowered": NoteCode.THROTTLED,
    "the dense model at this batch size was timed": NoteCode.DENSE_CONTENDED,
    "the runtime's own dense model at this batch size was timed": NoteCode.DENSE_CONTENDED,
    "simulated": NoteCode.SIMULATED,
    "not timed": NoteCode.NOT_TIMED,
    "not scored": NoteCode.NOT_SCORED,
    "scored as trial": NoteCode.SCORED_ELSEWHERE,
}
"""Codes of the notes that older versions stored as sentences, by how these began."""
_ENDS = {
    "kept in 16 bits": NoteCode.KEPT_IN_16_BITS,
    "other processes computed on the GPU": NoteCode.SHARED_GPU,
}
"""Codes of the sentences that began with a name or a number, by how they ended."""


def note_of(stored: str | Note | Mapping[str, str]) -> Note:
    """Return a stored note; a plain text, as old versions and classes of a user's own write it, gets its code."""
    if isinstance(stored, Note):
        return stored
    if isinstance(stored, Mapping):
        known = {str(code) for code in NoteCode}
        code = stored.get("code", "")
        return Note(NoteCode(code) if code in known else NoteCode.OTHER, stored["text"])
    text = str(stored)
    found = [code for end, code in _ENDS.items() if text.endswith(end)]
    found += [code for start, code in _BEGINNINGS.items() if text.startswith(start)]
    return Note(found[0] if found else NoteCode.OTHER, text)


def notes_of(stored: Iterable[str | Note | Mapping[str, str]]) -> tuple[Note, ...]:
    """Return stored notes, each read by :func:`note_of`; a text by itself is one note."""
    return tuple(map(note_of, [stored] if isinstance(stored, str) else stored))


def stored_notes(notes: Iterable[str | Note | Mapping[str, str]]) -> list[dict[str, str]]:
    """Return ``notes`` as JSON keeps them; plain texts are read as :func:`note_of` reads them."""
    return [{"code": str(note.code), "text": note.text} for note in notes_of(notes)]
