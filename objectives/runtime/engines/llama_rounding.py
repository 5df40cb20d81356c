"""Lets llama.cpp round a GGUF file of floats by itself, in a child process: its own formats, weighted by our moments.

The library weighs the error of every weight by the mean square of its input, its *importance matrix*. The diagonals of
the second moments that calibration collects anyway are just that.
"""

from __future__ import annotations

import ctypes as c
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.errors import Unsupported
from objectives.runtime.engines import llama_library, probe_process

FORMATS = {"q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q4_k_m": 15, "q4_1": 3, "q4_0": 2, "iq4_nl": 25}
"""Numbers of the mixes of formats that llama.cpp calls by these names."""
_LIMIT = 600.0
"""Seconds that rounding may take."""


class _Params(c.Structure):
    """``llama_model_quantize_params``; what follows ``importance`` may be shorter or longer than ``rest``."""

    _fields_ = (
        ("threads", c.c_int32), ("kind", c.c_int32), ("output", c.c_int32), ("embedding", c.c_int32),
        ("allow_again", c.c_bool), ("round_output", c.c_bool), ("only_copy", c.c_bool), ("pure", c.c_bool),
        ("keep_split", c.c_bool), ("dry_run", c.c_bool), ("importance", c.c_void_p), ("rest", c.c_ubyte * 512),
    )  # fmt: skip


class _Importance(c.Structure):
    """``llama_model_imatrix_data``: the importance of the inputs of one matrix; a list of them ends without a name."""

    _fields_ = (("name", c.c_char_p), ("data", c.POINTER(c.c_float)), ("size", c.c_size_t))


def round_file(
    place: str, source: Path, target: Path, name: str, importance: Mapping[str, NDArray[np.float32]], threads: int
) -> None:
    """Write ``source`` into ``target``, rounded to the format ``name`` by the library at ``place``.

    ``importance``: the mean square of every input, by the matrix's name in the file; may be empty. Raises Unsupported.
    """
    words = [place, str(source), str(target), str(FORMATS[name]), str(threads)]
    ended = probe_process.run(__name__, words, _LIMIT, pickle.dumps(dict(importance)))
    if ended.code != 0:
        raise Unsupported(f"llama.cpp could not round the model to {name}: {ended.how}")


# Everything below runs in the child process.


def _main(place: str, source: str, target: str, kind: int, threads: int) -> None:
    importance: dict[str, NDArray[np.float32]] = pickle.loads(sys.stdin.buffer.read())
    library = llama_library.loaded(place)
    for function in ("llama_model_quantize_default_params", "llama_model_quantize"):
        if not hasattr(library, function):
            sys.exit("this build cannot round: paretune fetch llama-cpp, and runtimes.llama_cpp.library=fetched")
    params = _params(library)
    params.kind, params.threads = kind, threads
    rows = [
        _Importance(name.encode(), values.ctypes.data_as(c.POINTER(c.c_float)), values.size)
        for name, values in importance.items()
    ]
    listed = (_Importance * (len(rows) + 1))(*rows)
    params.importance = c.cast(listed, c.c_void_p) if rows else None
    library.llama_model_quantize.restype = c.c_uint32
    library.llama_model_quantize.argtypes = [c.c_char_p, c.c_char_p, c.POINTER(_Params)]
    if library.llama_model_quantize(source.encode(), target.encode(), c.byref(params)):
        sys.exit("; ".join(llama_library.told()) or "it says no reason")


def _params(library: Any) -> _Params:
    library.llama_model_quantize_default_params.restype = _Params
    params: _Params = library.llama_model_quantize_default_params()
    seen = (params.threads, params.output == params.embedding, params.allow_again, params.round_output, params.pure)
    if seen != (0, True, False, True, False):
        sys.exit("its structures are of a version that is not known here")
    return params


if __name__ == "__main__":
    probe_process.begin()
    _main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
