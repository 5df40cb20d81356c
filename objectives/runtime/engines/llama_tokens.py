"""Asks llama.cpp for the tokens of texts, by the vocabulary of a GGUF file, in a process of its own."""

from __future__ import annotations

import ctypes as c
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from objectives.errors import Unsupported
from objectives.runtime.engines import llama_library, probe_process

_LIMIT = 120.0
"""Seconds that the process may take."""


def tokens_of(place: str, file: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text; special tokens in a text count as such. Raises Unsupported.

    ``place``: where the library is, nothing for the wheel.
    """
    given = json.dumps([text.encode().hex() for text in texts]).encode()
    ended = probe_process.run(__name__, [place, str(file)], _LIMIT, given)
    if ended.code != 0:
        raise Unsupported(f"llama.cpp cannot read this tokenizer: {ended.how}")
    ids: list[list[int]] = json.loads(ended.answer)
    return ids


# Everything below runs in the child process.


def _main(place: str, file: str) -> None:
    texts = [bytes.fromhex(text) for text in json.load(sys.stdin)]
    library = llama_library.loaded(place)
    library.llama_tokenize.restype = c.c_int32
    library.llama_tokenize.argtypes = [
        c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool,
    ]  # fmt: skip
    params = library.llama_model_default_params()
    params.vocabulary_only = True
    model = library.llama_model_load_from_file(file.encode(), params)
    if not model:
        sys.exit("; ".join(llama_library.told()) or "it says no reason")
    vocabulary = library.llama_model_get_vocab(model)
    found = []
    for text in texts:
        room = (c.c_int32 * (len(text) + 8))()  # no token has fewer than a byte, but for those at the ends
        count = library.llama_tokenize(vocabulary, text, len(text), room, len(room), True, True)
        if count < 0:
            sys.exit(f"a text of {len(text)} bytes has {-count} tokens")
        found.append(list(room[:count]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    probe_process.begin()
    _main(sys.argv[1], sys.argv[2])
