"""vLLM's server: another interpreter serves a folder of Hugging Face's format.

Prefixes are not kept: prompts of a load are other ones in every burst, and a user's file would be answered from the
cache. The room of keys and values is among the flags.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any
from uuid import uuid4

from objectives.assets.environment import variables
from objectives.protocols.serving import Capacity, Endpoint
from objectives.runtime.servers import http
from objectives.runtime.servers.server import ProcessServer, end, require_ready

PATIENCE = 600.0
"""Seconds that it may take to be ready."""
NAME = "served"
_TOKENIZER = "tokenizer.json"
_KEEPER = "objectives.runtime.servers.keeper"
_QUIET: Mapping[str, str] = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def command(python: Path, folder: Path, name: str, capacity: Capacity, port: int, flags: Sequence[str]) -> list[str]:
    """Return the command line of the server; ``name``: what it calls the model, by which it is known as ours."""
    return [
        str(python), "-P", "-s", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", name, "--host", http.HOST, "--port", str(port), "--max-model-len", str(capacity.tokens),
        "--max-num-seqs", str(capacity.slots), "--no-enable-prefix-caching", *flags,
    ]  # fmt: skip


def _with_tokenizer(folder: Path, tokenizer: Any, place: Path) -> Path:
    """Return ``folder``, or one below ``place`` that has its files and the tokenizer's."""
    if tokenizer is None or (folder / _TOKENIZER).exists():
        return folder
    new = place / "model"
    tokenizer.save_pretrained(new)
    for file in folder.iterdir():
        if not (new / file.name).exists():
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
    """Start vLLM's server of ``folder`` in the interpreter ``python``. Raises ProcessLost.

    ``tokenizer``: of a folder that holds none; ``flags``: further words of its command line; ``environment``: variables
    beside those of this process.
    """
    name, port = f"{NAME}-{uuid4().hex}", http.free_port()
    ours = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    endpoint = Endpoint(f"http://{http.HOST}:{port}", name, key=token_urlsafe())
    log = TemporaryFile()  # noqa: SIM115  closed with the server
    with TemporaryDirectory(prefix="paretune-vllm-") as place:
        words = command(python, _with_tokenizer(folder, tokenizer, Path(place)), name, capacity, port, flags)
        process = subprocess.Popen(
            [sys.executable, "-m", _KEEPER, "env", "-u", "PYTHONPATH", *words],
            env={**variables(), **_QUIET, **environment, **ours, "VLLM_API_KEY": endpoint.key},
            start_new_session=True, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=place,
        )  # fmt: skip
        try:
            require_ready(process, log, lambda: _is_ready(endpoint), PATIENCE, wait=0.5)
            return ProcessServer(process, endpoint, log, skipped=True)
        except BaseException:
            end(process, (), log)
            raise


def _is_ready(endpoint: Endpoint) -> bool:
    return http.is_healthy(endpoint.url) and endpoint.model in http.models_of(endpoint)
