"""vLLM's server: another interpreter serves a folder of Hugging Face's format.

Prefixes are not kept: prompts of a load are other ones in every burst, and a user's file would be answered from the
cache. The keys and values have the room that ``VLLM_CPU_KVCACHE_SPACE`` or ``gpu_memory_utilization`` gives.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from objectives.protocols.serving import Capacity, Endpoint
from objectives.runtime.servers import http
from objectives.runtime.servers.server import LOG, ProcessServer, end, require_ready

LIMIT = 600.0
"""Seconds that it may take to be ready."""
NAME = "served"
_TOKENIZER = "tokenizer.json"
_KEEPER = "objectives.runtime.servers.keeper"
_QUIET: Mapping[str, str] = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def command(python: Path, folder: Path, capacity: Capacity, port: int, flags: Sequence[str]) -> list[str]:
    """Return the command line of the server."""
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", NAME,
        "--host", http.HOST, "--port", str(port), "--max-model-len", str(capacity.tokens),
        "--max-num-seqs", str(capacity.slots), "--no-enable-prefix-caching", *flags,
    ]  # fmt: skip


def _with_tokenizer(folder: Path, tokenizer: Any, place: Path) -> Path:
    """Return ``folder``, or one below ``place`` that has its files and the tokenizer's."""
    if tokenizer is None or (folder / _TOKENIZER).exists():
        return folder
    new = place / "model"
    tokenizer.save_pretrained(new)
    for file in folder.iterdir():
        (new / file.name).symlink_to(file.resolve())
    return new


def start(
    python: Path,
    folder: Path,
    tokenizer: Any,
    capacity: Capacity,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] = {},
) -> ProcessServer:
    """Start vLLM's server of ``folder`` in the interpreter ``python``. Raises Unsupported.

    ``tokenizer``: of a folder that holds none; ``flags``: further words of its command line; ``environment``: variables
    beside those of this process.
    """
    place = TemporaryDirectory(prefix="paretune-vllm-")
    port = http.free_port()
    words = command(python, _with_tokenizer(folder, tokenizer, Path(place.name)), capacity, port, flags)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ours = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (Path(place.name) / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", _KEEPER, "env", "-u", "PYTHONPATH", *words],
            env={**inherited, **_QUIET, **environment, **ours},
            start_new_session=True, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=place.name,
        )  # fmt: skip
    url = f"http://{http.HOST}:{port}"
    try:
        require_ready(process, Path(place.name), lambda: http.is_healthy(url), LIMIT, wait=0.5)
        return ProcessServer(process, Endpoint(url, NAME), place, skipped=True)
    except BaseException:
        end(process, (), place)
        raise
