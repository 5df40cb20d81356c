"""The help pages of Python's own language reference, which every interpreter carries, in two disjoint splits.

The pages quote each other at length (a fifth of the ``test`` text stands in others too), so paragraphs of the ``test``
pages are cut out of the ``train`` ones. The text differs a little between Python versions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache


@lru_cache(maxsize=1)
def pages() -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Return names and texts of the pages, by split."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    random.Random(0).shuffle(names)
    cut = round(0.85 * len(names))
    test = tuple((name, topics[name]) for name in sorted(names[cut:]))
    seen = {key for _, text in test for key, _ in _paragraphs(text)}
    train = tuple((name, _without(topics[name], seen)) for name in sorted(names[:cut]))
    return {"train": tuple(page for page in train if page[1]), "test": test}


def _paragraphs(text: str) -> list[tuple[str, str]]:
    """Return the paragraphs, each after a key that does not depend on its indentation and line breaks."""
    return [(" ".join(part.split()), part) for part in text.split("\n\n")]


def _without(text: str, seen: set[str]) -> str:
    return "\n\n".join(part for key, part in _paragraphs(text) if key not in seen)
