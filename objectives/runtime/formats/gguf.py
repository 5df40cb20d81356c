"""A GGUF file with its tokenizer, which llama.cpp and all that is built on it load by themselves.

The weights are those of :mod:`.gguf_weights`, our codes as they are. Before a file is left behind, llama.cpp is asked:
whether it computes this architecture as transformers does, and whether it splits odd texts into the same tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from objectives.assets import AssetError, ready
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines.llama_formula import require_formula
from objectives.runtime.engines.llama_library import WHEEL, files_at
from objectives.runtime.engines.llama_tokens import tokens_of
from objectives.runtime.formats import gguf_weights
from objectives.runtime.formats.gguf_vocabulary import Limit, Vocabulary, vocabulary_of
from objectives.runtime.formats.odd_texts import chats, odd_texts, texts_with

FILE = "model.gguf"
_ASSET = "llama-cpp"
_SHOWN = 40
"""Characters of a text that a message quotes."""


def write(model: LoadedModel, tokenizer: Any, folder: Path) -> dict[str, int]:
    """Write ``model`` with ``tokenizer`` into ``folder`` and return the bytes of each matrix by its module's name.

    Raises Unsupported, and leaves no file, where llama.cpp would compute or split texts otherwise.
    """
    place, vocabulary = library(), vocabulary_of(tokenizer, model.vocabulary)
    require_formula(model, place)
    file = folder / FILE
    sizes = gguf_weights.write(model, file, vocabulary.add_to)
    try:
        require_equal_tokens(tokenizer, vocabulary, file, place)
    except Unsupported:
        file.unlink()
        raise
    return sizes


def library() -> str:
    """Return where a build of llama.cpp is that can be asked, nothing for the wheel. Raises Unsupported."""
    if files_at(""):
        return ""
    try:
        fetched = ready(_ASSET)
    except AssetError:
        fetched = None
    if fetched is None:
        raise Unsupported(
            f"format=gguf is checked by llama.cpp before it is left behind: pip install {WHEEL}, or paretune fetch "
            f"{_ASSET}"
        )
    return str(fetched)


def require_equal_tokens(tokenizer: Any, vocabulary: Vocabulary, file: Path, place: str) -> None:
    """Raise Unsupported, with a text, where llama.cpp splits one otherwise than ``tokenizer``.

    Texts are odd ones, ones with every kind of special token, and a conversation; all but those that
    :class:`~.gguf_vocabulary.Limit` names.
    """
    special = [token for token, kind in zip(vocabulary.tokens, vocabulary.kinds) if kind in _NAMED][:_FEW]
    inside = Limit.AFTER_SPECIAL not in vocabulary.limits
    texts = [*odd_texts(), *texts_with(special, inside), *(chats(tokenizer) if inside else ())]
    if Limit.COMPOSED in vocabulary.limits:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    if Limit.LEADING_SPACE in vocabulary.limits:
        texts = [text for text in texts if not text.startswith(" ")]
    wanted = [tokenizer(text).input_ids for text in texts]
    for text, ours, theirs in zip(texts, wanted, tokens_of(place, file, texts), strict=True):
        if ours != theirs:
            raise Unsupported(_told(text, ours, theirs))


_NAMED, _FEW = (3, 4), 12
"""Kinds of tokens that are found by their text, control tokens and those that users added; and how many are tried."""


def _told(text: str, ours: Sequence[int], theirs: Sequence[int]) -> str:
    same = next((place for place, (one, other) in enumerate(zip(ours, theirs)) if one != other), 0)
    return (
        f"format=gguf: llama.cpp splits {text[:_SHOWN]!r} otherwise than this tokenizer, from token {same} on: "
        f"{list(theirs[same : same + 4])} instead of {list(ours[same : same + 4])}"
    )
