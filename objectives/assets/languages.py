"""Texts with their language: the strings of Django's pages in 20 languages, taken from its wheel."""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import Say
from objectives.assets.translations import LICENCE, SHA256, WHEEL, strings
from objectives.assets.wheels import download_wheel, extract

LANGUAGES = {
    "ar": "ar", "cs": "cs", "da": "da", "de": "de", "el": "el", "es": "es", "fi": "fi", "fr": "fr", "hu": "hu",
    "id": "id", "it": "it", "ja": "ja", "nl": "nl", "pl": "pl", "pt": "pt", "ru": "ru", "sv": "sv", "tr": "tr",
    "zh": "zh_Hans",
}  # fmt: skip
"""Labels with the folders of their catalogues; ``en`` is the language of the sources."""
SPLITS = ("train", "test")

_PLACEHOLDER = re.compile(r"%(\(\w+\))?[a-zA-Z]|\{\w*\}|<[^>]*>|&\w+;")
_LATIN = 0x250  # letters below are Latin
_TEST = 4  # one source in so many is kept for the test


@dataclass(frozen=True)
class Languages:
    """The tables ``train.csv`` and ``test.csv``: text, label. All translations of a source are in one of them.

    Left out are texts that several of the languages have, since they have no one language, and texts without two
    letters beside their placeholders. Single words in Latin letters, of which many are names, are not tested.
    """

    name: str = "languages"
    version: str = "5.2-2"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the wheel, and write its strings with their languages."""
        say(f"downloading {WHEEL} (8 MB)")
        wheel = download_wheel(WHEEL, SHA256, into.parent)
        with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
            extract(wheel, "django/", Path(scratch))
            found = {label: strings(Path(scratch), folder) for label, folder in LANGUAGES.items()}
        extract(wheel, LICENCE, into)
        for split, rows in divided(found).items():
            with (into / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([("text", "label"), *rows])
            say(f"{split}.csv: {len(rows)} strings in {len(LANGUAGES) + 1} languages")


def divided(found: Mapping[str, Mapping[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Return texts and labels by split, from the translations of every source by label."""
    sides: dict[str, set[str]] = {split: set() for split in SPLITS}
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for label, source, text in _entries(found):
        labels[_folded(text)].add(label)
        sides[side(source)].add(text)
    seen = {_folded(text) for text in sides["test"]}  # two sources may have one translation
    sides["train"] = {text for text in sides["train"] if _folded(text) not in seen}
    clear = {text: next(iter(names)) for text, names in labels.items() if len(names) == 1}
    fits = {"train": _has_letters, "test": _is_telling}
    return {
        split: [(text, clear[_folded(text)]) for text in sorted(texts) if _folded(text) in clear and fits[split](text)]
        for split, texts in sides.items()
    }


def side(source: str) -> str:
    """Return the split of all translations of a source, by its hash."""
    return "train" if int(hashlib.sha256(source.encode()).hexdigest(), 16) % _TEST else "test"


def _entries(found: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    for label, translations in found.items():
        for source, text in translations.items():
            yield "en", source, source
            yield label, source, text


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _has_letters(text: str) -> bool:
    return sum(letter.isalpha() for letter in _PLACEHOLDER.sub("", text)) >= 2


def _is_telling(text: str) -> bool:
    """Return whether ``text`` has two words, or letters of another alphabet, where one word tells enough."""
    words = re.findall(r"[^\W\d_]+", _PLACEHOLDER.sub(" ", text))
    latin = all(ord(letter) < _LATIN for word in words for letter in word)
    return len(words) > 1 if latin else _has_letters(text)


ASSET = Languages()
