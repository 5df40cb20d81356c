"""The languages of Django's strings: no source and no text on both sides, no text with two languages."""

from __future__ import annotations

import csv

import pytest

from objectives import assets
from objectives.assets.languages import divided, side

SOURCES = [f"Source number {number}" for number in range(60)]


def test_a_source_and_all_its_translations_are_on_one_side() -> None:
    found = {"de": {each: f"Deutsch {each}" for each in SOURCES}, "fr": {each: f"En {each}" for each in SOURCES}}
    splits = divided(found)
    assert {split: sorted(rows) for split, rows in splits.items()} == {
        split: sorted(
            row
            for each in SOURCES
            if side(each) == split
            for row in ((each, "en"), (f"Deutsch {each}", "de"), (f"En {each}", "fr"))
        )
        for split in ("train", "test")
    }
    assert 0 < len(splits["test"]) < len(splits["train"])


def test_a_text_of_two_languages_and_one_without_words_are_left_out() -> None:
    found = {
        "de": {"Mail": "E-Mail", "Yes": "Ja", "A": "%(name)s: %(value)s", "To": "An %(name)s"},
        "sv": {"Mail": "e-mail", "Yes": "ja ", "No": "Nej", "A": "<b>%d</b>&nbsp;"},
    }
    rows = sorted(row for some in divided(found).values() for row in some)
    assert rows == [("An %(name)s", "de"), ("Mail", "en"), ("Nej", "sv"), ("No", "en"), ("To", "en"), ("Yes", "en")]


def test_a_translation_of_two_sources_is_tested_and_not_trained_on() -> None:
    tested, trained = (next(each for each in SOURCES if side(each) == split) for split in ("test", "train"))
    splits = divided({"de": {tested: "Alles löschen", trained: "alles  Löschen"}})
    assert splits == {"train": [(trained, "en")], "test": [("Alles löschen", "de"), (tested, "en")]}


def test_a_single_word_is_tested_where_its_alphabet_tells_enough() -> None:
    tested = next(each for each in SOURCES if side(each) == "test")
    found = {
        label: {tested: text} for label, text in {"de": "Thema %s", "el": "Θέμα", "ja": "件名", "it": "Un tema"}.items()
    }
    assert divided(found)["test"] == [(tested, "en"), ("Un tema", "it"), ("Θέμα", "el"), ("件名", "ja")]


@pytest.mark.slow
def test_the_tables_have_twenty_languages_and_share_no_text() -> None:
    folder = assets.locate("languages")
    rows = {}
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows[split] = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    assert len(rows["test"]) >= 2000
    assert all(len({label for _, label in some}) == 20 for some in rows.values())
    assert not {text for text, _ in rows["train"]} & {text for text, _ in rows["test"]}
    assert sum("%(" in text for text, _ in rows["test"]) > 100
