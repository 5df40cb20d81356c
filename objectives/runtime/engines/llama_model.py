"""A GGUF file that llama.cpp runs: logits at places of texts, and greedy generation, in numpy.

It is used in a process of its own (:mod:`.llama_child`).
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.errors import Unsupported
from objectives.runtime.engines.llama_library import Batch, told

UNIT = 256
"""Tokens of a sequence come in multiples of this many."""
MOST_ROWS = 256
"""Most sequences at a time, ``LLAMA_MAX_SEQ`` of the library."""
PASS = 512
"""Most tokens of one pass; longer prompts take several."""
Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
_OFF = 0
_NO_ROOM = 1
"""The code of a pass for which the cache has no room."""
_READ = 0
"""The way of loading that reads a file instead of mapping it: of weights that are laid out anew nothing stays."""
_TYPES = {32: 0, 16: 1, 8: 8, 4: 2}
"""Numbers of the formats F32, F16, Q8_0 and Q4_0 of keys and values, by bits."""


@dataclass(frozen=True)
class Settings:
    """The way in which a file is opened; ``kv_bits``: of keys and values; ``repack``: lay out weights anew."""

    threads: int
    kv_bits: int = 16
    repack: bool = True


class Model:
    """A GGUF file that is open, with one context: the cache of the texts that were read last."""

    def __init__(self, library: c.CDLL, file: Path, settings: Settings) -> None:
        """Open ``file``. Raises Unsupported."""
        self._library, self._settings = library, settings
        params = library.llama_model_default_params()
        params.extra_buffers, params.load_mode = settings.repack, _READ
        self._model = library.llama_model_load_from_file(str(file).encode(), params)
        if not self._model:
            raise Unsupported(f"llama.cpp cannot open {file.name}: {'; '.join(told())}")
        self._vocabulary = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model)))
        self._context: int | None = None
        self._rows = self._tokens = 0
        self._texts: list[Ids] = []

    def logits(self, texts: Sequence[Ids], wanted: Sequence[Ids]) -> Floats:
        """Return the logits [sum of wanted, vocabulary] at places of ``texts``, row after row.

        ``texts``: int32, everything from the first token on; what the cache holds of it is not read again, but for
        places that are ``wanted``. Raises MemoryError.
        """
        longest = max(map(len, texts))
        if len(texts) > self._rows or longest > self._tokens:
            self.reset(max(len(texts), self._rows), max(longest, self._tokens))
        begun = [self._keep(row, text, int(places[0])) for row, (text, places) in enumerate(zip(texts, wanted))]
        self._texts[: len(texts)] = [text[:first] for text, first in zip(texts, begun)]
        found = self._read(texts, begun, wanted)
        self._texts[: len(texts)] = texts
        return found

    def generate(self, texts: Sequence[Ids], count: int, end_phase: Callable[[str], object]) -> Ids:
        """Return the ``count`` likeliest tokens that follow each text, int32 [rows, count], read from anew.

        ``end_phase`` is called after the pass over the texts and after every further one.
        """
        self.reset(len(texts), max(map(len, texts)) + count)
        out = np.empty((len(texts), count), np.int32)
        last = [np.array([len(text) - 1]) for text in texts]
        out[:, 0] = self._read(texts, [0] * len(texts), last).argmax(axis=1)
        end_phase("prefill")
        for place in range(1, count):
            self._decode(
                out[:, place - 1], np.concatenate(last) + place, np.arange(len(texts)), self._every(len(texts))
            )
            out[:, place] = [self._row(row).argmax() for row in range(len(texts))]
            end_phase("decode")
        return out

    def reset(self, rows: int, tokens: int) -> None:
        """Clear the cache, and give it room for ``rows`` sequences of ``tokens`` tokens.

        Raises MemoryError, and Unsupported for more rows than the library takes, which no candidate asks for.
        """
        self._texts = []
        room = -(-tokens // UNIT) * UNIT
        library = self._library
        if rows > MOST_ROWS:
            raise Unsupported(f"llama.cpp runs at most {MOST_ROWS} sequences at a time, got {rows}")
        if self._context is not None and (self._rows, self._tokens) == (rows, room):
            library.llama_memory_clear(library.llama_get_memory(self._context), False)
            return
        if self._context is not None:
            library.llama_free(self._context)
        self._rows = self._tokens = 0
        params = library.llama_context_default_params()
        params.n_ctx, params.n_seq_max = rows * room, rows
        params.n_batch = params.n_ubatch = max(PASS, rows)
        params.n_threads = params.n_threads_batch = self._settings.threads
        params.type_k = params.type_v = _TYPES[self._settings.kv_bits]
        if self._settings.kv_bits == 32:  # fused attention rounds to fp16 whatever the cache holds
            params.flash = _OFF
        self._context = library.llama_init_from_model(self._model, params)
        if not self._context:
            raise MemoryError(f"llama.cpp has no room for {rows} x {tokens} tokens: {'; '.join(told())}")
        self._rows, self._tokens = rows, room

    def _keep(self, row: int, text: Ids, wanted: int) -> int:
        """Return how many tokens of ``text`` the cache holds before the place ``wanted``, and forget the rest of it."""
        held = self._texts[row] if row < len(self._texts) else text[:0]  # unknown is what was generated, or failed
        most = min(len(held), wanted)
        differing = np.flatnonzero(held[:most] != text[:most])
        same = int(differing[0]) if len(differing) else most
        self._library.llama_memory_seq_rm(self._library.llama_get_memory(self._context), row, same, -1)
        return same

    def _read(self, texts: Sequence[Ids], begun: Sequence[int], wanted: Sequence[Ids]) -> Floats:
        """Read ``texts`` from the places ``begun`` on, in passes of some tokens."""
        tokens = np.concatenate([text[first:] for text, first in zip(texts, begun)])
        places = np.concatenate([np.arange(first, len(text)) for text, first in zip(texts, begun)])
        rows = np.repeat(np.arange(len(texts)), [len(text) - first for text, first in zip(texts, begun)])
        asked = np.zeros(len(tokens), np.int8)
        ends = np.cumsum([len(text) - first for text, first in zip(texts, begun)])
        for text, end, at in zip(texts, ends, wanted):
            asked[end - len(text) + at] = 1
        found = np.empty((int(asked.sum()), self._vocabulary), np.float32)
        filled = 0
        for start in range(0, len(tokens), self._pass):
            part = slice(start, start + self._pass)
            self._decode(tokens[part], places[part], rows[part], asked[part])
            for index in np.flatnonzero(asked[part]):
                found[filled] = self._row(int(index))
                filled += 1
        return found

    @property
    def _pass(self) -> int:
        return max(PASS, self._rows)

    def _decode(self, tokens: NDArray[Any], places: NDArray[Any], rows: NDArray[Any], asked: NDArray[np.int8]) -> None:
        count = len(tokens)
        kept = [np.ascontiguousarray(each, np.int32) for each in (tokens, places, rows, np.ones(count, np.int32))]
        sequences = kept[2].ctypes.data + 4 * np.arange(count, dtype=np.uint64)
        integers = c.POINTER(c.c_int32)
        batch = Batch(
            count,
            kept[0].ctypes.data_as(integers),
            None,
            kept[1].ctypes.data_as(integers),
            kept[3].ctypes.data_as(integers),
            sequences.ctypes.data_as(c.POINTER(integers)),
            asked.ctypes.data_as(c.POINTER(c.c_int8)),
        )
        code = self._library.llama_decode(self._context, batch)
        if code:
            kind = MemoryError if code == _NO_ROOM else Unsupported
            raise kind(f"llama.cpp ended a pass of {count} tokens with code {code}: {'; '.join(told())}")

    def _row(self, index: int) -> Floats:
        """Return the logits of token ``index`` of the last pass, where they lie."""
        row: Floats = np.ctypeslib.as_array(
            self._library.llama_get_logits_ith(self._context, index), (self._vocabulary,)
        )
        return row

    @staticmethod
    @cache
    def _every(rows: int) -> NDArray[np.int8]:
        return np.ones(rows, np.int8)
