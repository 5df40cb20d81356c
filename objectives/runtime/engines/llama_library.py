"""Loads the C library of llama.cpp, and declares of its interface what is used; ctypes calls it.

Two builds are known: the extension module of the wheel ``xllamacpp``, which exports the library's functions (built for
AVX2), and a folder of ``libllama`` with one ``libggml-cpu`` per instruction set, of which the library takes the best.
Structures are passed by value and grow from version to version. Only fields are set that stand before all that has
changed, and their defaults are compared before: a library whose defaults differ is refused.
"""

from __future__ import annotations

import ctypes as c
import os
from importlib.util import find_spec
from pathlib import Path

from objectives.errors import Unsupported

WHEEL = "xllamacpp"


class ModelParams(c.Structure):
    """``llama_model_params``; what follows ``extra_buffers`` may be shorter or longer than ``rest``."""

    _fields_ = (
        ("devices", c.c_void_p), ("overrides", c.c_void_p), ("gpu_layers", c.c_int32), ("split_mode", c.c_int32),
        ("load_mode", c.c_int32), ("lazy_mode", c.c_int32), ("main_gpu", c.c_int32), ("tensor_split", c.c_void_p),
        ("progress", c.c_void_p), ("progress_data", c.c_void_p), ("kv_overrides", c.c_void_p),
        ("vocabulary_only", c.c_bool), ("check_tensors", c.c_bool), ("extra_buffers", c.c_bool),
        ("rest", c.c_ubyte * 512),
    )  # fmt: skip


class ContextParams(c.Structure):
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


class Batch(c.Structure):
    """``llama_batch``: tokens with their positions, sequences, and whether their logits are wanted."""

    _fields_ = (
        ("n_tokens", c.c_int32), ("token", c.POINTER(c.c_int32)), ("embd", c.c_void_p), ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)), ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )  # fmt: skip


_SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [c.c_void_p, c.c_void_p]),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c.c_void_p, [c.c_char_p, ModelParams]),
    "llama_init_from_model": (c.c_void_p, [c.c_void_p, ContextParams]),
    "llama_free": (None, [c.c_void_p]),
    "llama_get_memory": (c.c_void_p, [c.c_void_p]),
    "llama_memory_clear": (None, [c.c_void_p, c.c_bool]),
    "llama_memory_seq_rm": (c.c_bool, [c.c_void_p, c.c_int32, c.c_int32, c.c_int32]),
    "llama_model_get_vocab": (c.c_void_p, [c.c_void_p]),
    "llama_vocab_n_tokens": (c.c_int32, [c.c_void_p]),
    "llama_decode": (c.c_int32, [c.c_void_p, Batch]),
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
