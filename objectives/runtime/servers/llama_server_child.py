"""Runs llama.cpp's server, in the child process of :mod:`.llama_server`.

It prints ``ok`` once its library is imported, waits for a line with the key that requests will show, opens the model,
and prints ``ok`` and its address. It ends when its input is closed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from objectives.runtime.engines import probe_process

_HOST = "127.0.0.1"
_UNIT = 256
"""Tokens of a slot come in multiples of this many."""


def params_of(settings: dict[str, Any]) -> Any:
    """Return the parameters of the server: as many slots as clients, each with room for the longest request."""
    import xllamacpp as engine

    room = -(-settings["tokens"] // _UNIT) * _UNIT
    params = engine.CommonParams()
    params.model.path = settings["file"]
    params.n_parallel, params.n_ctx = settings["slots"], settings["slots"] * room
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.load_mode = engine.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.no_extra_bufts = not settings["repack"]
    kinds = engine.ggml_type
    types = {32: kinds.GGML_TYPE_F32, 16: kinds.GGML_TYPE_F16, 8: kinds.GGML_TYPE_Q8_0, 4: kinds.GGML_TYPE_Q4_0}
    params.cache_type_k = params.cache_type_v = types[settings["cache_bits"]]
    params.cont_batching, params.kv_unified, params.fit_params = True, False, False
    params.cache_prompt, params.cache_ram_mib, params.cache_idle_slots = False, 0, False
    params.hostnames, params.port, params.ui = [_HOST], 0, False
    params.enable_chat_template, params.verbosity = False, 2
    return params


if __name__ == "__main__":
    probe_process.begin()
    import xllamacpp

    print("ok", flush=True)
    key = sys.stdin.readline().strip()
    try:
        params = params_of(json.loads(sys.argv[1]))
        params.api_keys = [key]
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print("failed", str(error).replace("\n", " "), flush=True)
        os._exit(1)
    print("ok", server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)
