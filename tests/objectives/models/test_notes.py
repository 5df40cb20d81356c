"""Notes that older versions stored as sentences get the codes that the same notes have today."""

from __future__ import annotations

import pytest

from objectives.models.notes import note_of, notes_of, stored_notes
from objectives.types import Note, NoteCode

SENTENCES = {
    "contended: threads waited 40% of the time, a fixed product took 2.10x as long as at best": NoteCode.CONTENDED,
    "threads waited 40% of the time: latencies are by the wall clock": NoteCode.WAITED,
    "speed known to 3.1% only: behind another for sure": NoteCode.IMPRECISE,
    "speed known to 3.1% only: seconds spent": NoteCode.IMPRECISE,
    "drifted: the reference takes 1.32x as long as at first, ratios hold": NoteCode.DRIFTED,
    "the GPU lowered its clocks for heat or power": NoteCode.THROTTLED,
    "2 other processes computed on the GPU": NoteCode.SHARED_GPU,
    "the dense model at this batch size was timed on a busy machine": NoteCode.DENSE_CONTENDED,
    "the runtime's own dense model at this batch size was timed on a busy machine": NoteCode.DENSE_CONTENDED,
    "simulated": NoteCode.SIMULATED,
    "not timed: its accuracy misses the floor": NoteCode.NOT_TIMED,
    "not scored: another is at least as good in every objective": NoteCode.NOT_SCORED,
    "scored as trial 7": NoteCode.SCORED_ELSEWHERE,
    "lm_head.weight: 3 dimensions are no linear, kept in 16 bits": NoteCode.KEPT_IN_16_BITS,
    "layers.0.mlp.up: 30 inputs x 7 outputs fit no 4-bit kernel, kept in 16 bits": NoteCode.KEPT_IN_16_BITS,
    "layers.0.mlp.up: no sparse kernel for 30 inputs, its zeros are multiplied": NoteCode.OTHER,
    "layers.0.mlp.up: 96 inputs fit no group of 64, groups of 32 instead": NoteCode.OTHER,
    "layers.0.mlp.up: no calibration row that was read tells what it is worth": NoteCode.OTHER,
    "recovery: a masked model is not trained, corrections would fill its zeros": NoteCode.OTHER,
}
"""Each kind of sentence that versions before 2026-11-28 could store."""


@pytest.mark.parametrize(("sentence", "code"), SENTENCES.items())
def test_an_old_sentence_gets_the_code_of_its_kind(sentence: str, code: NoteCode) -> None:
    assert note_of(sentence) == Note(code, sentence)


def test_every_code_has_an_old_sentence() -> None:
    assert set(SENTENCES.values()) == set(NoteCode)


def test_a_text_by_itself_is_one_note() -> None:
    assert notes_of("drifted: much") == (Note(NoteCode.DRIFTED, "drifted: much"),)


def test_stored_notes_are_read_back_as_they_were() -> None:
    notes = tuple(Note(code, f"about {code}") for code in NoteCode)
    assert notes_of(stored_notes(notes)) == notes


def test_a_code_that_nobody_knows_is_read_as_other() -> None:
    assert notes_of([{"code": "of-tomorrow", "text": "new"}]) == (Note(NoteCode.OTHER, "new"),)
