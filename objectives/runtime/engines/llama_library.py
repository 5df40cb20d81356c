"""Drives the C library of llama.cpp through ctypes, in a process of its own.

Two builds are known: the extension module of the wheel ``xllamacpp``, which exports the library's functions (built for
AVX2), and a folder of ``libllama`` with one ``libggml-cpu`` per instruction set, of which the library takes the best.
Structures are passed by value and grow from version to version. Only fields are set that stand before all that has
changed, and their defaults are compared before: a library whose defaults differ is refused.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.errors import Unsupported

WHEEL = "xllamacpp"
UNIT = 256
"""Tokens of a sequence come in multiples of this many."""
PASS = 512
"""Most tokens of one pass; longer prompts take several."""
Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
_OFF = 0
_READ = 0
"""The way of loading that reads a file instead of mapping it: of weights that are laid out anew nothing stays."""
_TYPES = {32: 0, 16: 1, 8: 8, 4: 2}
"""Numbers of the formats F32, F16, Q8_0 and Q4_0 of keys and values, by bits."""


@dataclass(frozen=True)
class Settings:
    """The way in which a file is opened; ``cache_bits``: of keys and values; ``repack``: lay out weights anew."""

    threads: int
    cache_bits: int = 16
    repack: bool = True


class _ModelParams(c.Structure):
    """``llama_model_params``; what follows ``extra_buffers`` may be shorter or longer than ``rest``."""

    _fields_ = (
        ("devices", c.c_void_p), ("overrides", c.c_void_p), ("gpu_layers", c.c_int32), ("split_mode", c.c_int32),
        ("load_mode", c.c_int32), ("lazy_mode", c.c_int32), ("main_gpu", c.c_int32), ("tensor_split", c.c_void_p),
        ("progress", c.c_void_p), ("progress_data", c.c_void_p), ("kv_overrides", c.c_void_p),
        ("vocabulary_only", c.c_bool), ("check_tensors", c.c_bool), ("extra_buffers", c.c_bool),
        ("rest", c.c_ubyte * 512),
    )  # fmt: skip


class _ContextParams(c.Structure):
    """``llama_context_params`` as far as it is set here."""

    _fields_ = (
        ("n_ctx", c.c_uint32), ("n_batch", c.c_uint32), ("n_ubatch", c.c_uint32), ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32), ("n_outputs", c.c_uint32), ("n_outputs_per_seq", c.c_uint32),
        ("n_threads", c.c_int32), ("n_threads_batch", c.c_int32), ("context_type", c.c_int32),
        ("rope_scaling", c.c_int32), ("pooling", c.c_int32), ("attention", c.c_int32), ("flash", c.c_int32),
        ("floats", c.c_float * 6), ("yarn_context", c.c_uint32), ("defragment", c.c_float),
        ("callback", c.c_void_p), ("callback_data", c.c_void_p), ("type_k", c.c_int32), ("type_v", c.c_int32),
        ("rest", c.c_ubyte * 512),
    )  # fmt: skip


class _Batch(c.Structure):
    """``llama_batch``: tokens with their positions, sequences, and whether their logits are wanted."""

    _fields_ = (
        ("n_tokens", c.c_int32), ("token", c.POINTER(c.c_int32)), ("embd", c.c_void_p), ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)), ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )  # fmt: skip


_SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [c.c_void_p, c.c_void_p]),
    "llama_model_default_params": (_ModelParams, []),
    "llama_context_default_params": (_ContextParams, []),
    "llama_model_load_from_file": (c.c_void_p, [c.c_char_p, _ModelParams]),
    "llama_init_from_model": (c.c_void_p, [c.c_void_p, _ContextParams]),
    "llama_free": (None, [c.c_void_p]),
    "llama_get_memory": (c.c_void_p, [c.c_void_p]),
    "llama_memory_clear": (None, [c.c_void_p, c.c_bool]),
    "llama_memory_seq_rm": (c.c_bool, [c.c_void_p, c.c_int32, c.c_int32, c.c_int32]),
    "llama_model_get_vocab": (c.c_void_p, [c.c_void_p]),
    "llama_vocab_n_tokens": (c.c_int32, [c.c_void_p]),
    "llama_decode": (c.c_int32, [c.c_void_p, _Batch]),
    "llama_get_logits_ith": (c.POINTER(c.c_float), [c.c_void_p, c.c_int32]),
}


def files_at(place: str) -> list[Path]:
    """Return the libraries at ``place``, in the order in which they are loaded; none where none are there.

    ``place``: a file, a folder, or nothing for the wheel.
    """
    if not place:
        spec = find_spec(WHEEL)
        return [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob(f"{WHEEL}*.so"))
    path = Path(place).expanduser()
    if not path.is_dir():
        return [path] if path.is_file() else []
    names = ("libggml-base.*so*", "libggml.*so*", "libllama.*so*")
    found = [sorted(path.glob(name))[:1] for name in names]
    return [file for files in found for file in files] if all(found) else []


def loaded(place: str) -> c.CDLL:
    """Load the library at ``place``, with those that it needs. Raises Unsupported."""
    files = files_at(place)
    if not files:
        raise Unsupported(f"no libllama is at {place or WHEEL}")
    try:
        for file in files:
            library = c.CDLL(str(file), mode=os.RTLD_GLOBAL)
            if hasattr(library, "ggml_backend_load_all_from_path"):
                library.ggml_backend_load_all_from_path(c.c_char_p(str(file.parent).encode()))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise Unsupported(f"{files[-1]} cannot be used: {error}") from error
    library.llama_log_set(c.cast(_log, c.c_void_p), None)
    library.llama_backend_init()
    _require_layout(library, files[-1])
    return library


_LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
_errors: list[str] = []


def _keep_error(level: int, text: bytes, _data: object) -> None:
    """Keep what the library calls an error."""
    if level == _ERROR:
        _errors.append(text.decode(errors="replace").strip())


def told() -> list[str]:
    """Return the last errors of the library."""
    return _errors[-2:]


_ERROR = 4
_log = _LOG(_keep_error)


def _require_layout(library: c.CDLL, file: Path) -> None:
    """Raise Unsupported where the defaults of the fields that are set are not those that every known version has."""
    model, context = library.llama_model_default_params(), library.llama_context_default_params()
    seen = (
        context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max, context.n_threads, context.flash,
        context.defragment, context.type_k, context.type_v, model.vocabulary_only, model.extra_buffers,
    )  # fmt: skip
    if seen != (512, 2048, 512, 1, 4, -1, -1.0, 1, 1, False, True):
        raise Unsupported(f"{file} is of a version of llama.cpp whose structures are not known here")


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
        self._texts[: len(texts)] = texts
        return self._read(texts, begun, wanted)

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
        self.reset(self._rows, self._tokens)  # what it wrote is not known as a text
        return out

    def reset(self, rows: int, tokens: int) -> None:
        """Clear the cache, and give it room for ``rows`` sequences of ``tokens`` tokens. Raises MemoryError."""
        self._texts = []
        room = -(-tokens // UNIT) * UNIT
        library = self._library
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
        params.type_k = params.type_v = _TYPES[self._settings.cache_bits]
        if self._settings.cache_bits == 32:  # fused attention rounds to fp16 whatever the cache holds
            params.flash = _OFF
        self._context = library.llama_init_from_model(self._model, params)
        if not self._context:
            raise MemoryError(f"llama.cpp has no room for {rows} x {tokens} tokens: {'; '.join(told())}")
        self._rows, self._tokens = rows, room

    def _keep(self, row: int, text: Ids, wanted: int) -> int:
        """Return how many tokens of ``text`` the cache holds before the place ``wanted``, and forget the rest of it."""
        held = self._texts[row] if row < len(self._texts) else text[:0]
        most = min(len(held), wanted)
        differing = np.flatnonzero(held[:most] != text[:most])
        same = int(differing[0]) if len(differing) else most
        if len(held) > same:
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
        batch = _Batch(
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
            raise MemoryError(f"llama.cpp ended a pass of {count} tokens with code {code}: {'; '.join(told())}")

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
