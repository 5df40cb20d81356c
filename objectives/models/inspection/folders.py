"""Finds a checkpoint's files, and says what a folder holds that is no checkpoint.

A hub id is looked for in the hub's cache first. Where it is not there, one short connection tells whether the hub can
be reached at all: its own client would try for half a minute.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from objectives.errors import ModelError

ASSET = "asset:"
"""Prefix of a ``model.path`` that names an asset."""
MANIFEST = "paretune.json"
"""File beside the weights of a winner that describes it."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json", "spiece.model", "source.spm",
              "sentencepiece.bpe.model", "spm.model", "tekken.json")  # fmt: skip
HUB_SECONDS = 1.5
"""Seconds that a hub may take to answer before it counts as out of reach."""

_FOREIGN = {
    "*.gguf": "GGUF files, which are those of llama.cpp and mostly quantised",
    "*.onnx": "ONNX files",
    "onnx/*.onnx": "ONNX files",
    "tf_model.h5": "TensorFlow's weights",
    "*.msgpack": "Flax's weights",
    "*.bin": "pickled weights",
    "*.pt": "pickled weights",
    "*.pth": "pickled weights",
}


def local_folder(path: str) -> Path | None:
    """Return the folder of a path or a ready asset, else None: a hub id, or an asset that is built on first use.

    Raises ModelError for what can be neither, AssetError for an asset that has to be fetched.
    """
    if path.startswith(ASSET):
        return _asset_folder(path.removeprefix(ASSET))
    local = _expanded(path)
    try:
        if local.is_dir():
            return local
        is_file = local.is_file()
    except OSError as error:
        raise ModelError(f"model.path: {error.strerror}: {path[:80]}; give a folder or a hub id") from error
    if is_file:
        raise ModelError(f"model.path: {path} is a file; give the folder with config.json, weights and tokenizer")
    if local.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        raise ModelError(f"model.path: directory {path} not found (working directory {Path.cwd()})")
    return None


def cached_folder(hub_id: str, revision: str | None) -> Path | None:
    """Return the folder of the hub's cache with the files of ``hub_id``; None where it holds no config.json."""
    base = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    wanted = revision or "main"
    file = base / "refs" / wanted
    folder = base / "snapshots" / (file.read_text(encoding="utf-8").strip() if file.is_file() else wanted)
    return folder if (folder / "config.json").is_file() else None


def hub_cache() -> Path:
    """Return where the hub's client keeps what it downloaded."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return _expanded(named or str(home / "hub"))


def _expanded(path: str) -> Path:
    """Return the path with ``~`` expanded; ``~name`` of a user who does not exist is left as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_offline() -> str | None:
    """Return the variable that keeps the hub's client offline, where one is set."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}), None)


def hub_answers(seconds: float = HUB_SECONDS) -> bool:
    """Return whether the hub, or the proxy before it, takes a connection in time."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    host, port = _address("HF_ENDPOINT", endpoint)
    proxy = None if proxy_bypass(host) else getproxies().get(urlsplit(endpoint).scheme)
    if proxy:
        host, port = _address(_variable_of(proxy), proxy)
    answered: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError:
            return
        answered.append(True)

    thread = Thread(target=connect, daemon=True)  # looking up a name knows no limit of its own
    thread.start()
    thread.join(seconds)
    return bool(answered)


def _variable_of(proxy: str) -> str:
    """Return the environment variable that holds a proxy's address."""
    return next((name for name, value in os.environ.items() if value == proxy and "proxy" in name.lower()), "proxy")


def _address(variable: str, url: str) -> tuple[str, int]:
    """Return host and port of a URL that an environment variable holds. Raises ModelError for a malformed URL."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if not parts.hostname:
            raise ValueError("no host")
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ModelError(f"{variable}: a URL as https://host:443 expected, got {url!r} ({error})") from error


def require_hub(hub_id: str) -> None:
    """Raise ModelError at once where ``hub_id`` cannot be downloaded."""
    if hub_id.count("/") > 1 or any(letter.isspace() for letter in hub_id):
        near = f"model.path: directory {hub_id} not found (working directory {Path.cwd()})"
        raise ModelError(f"{near}, and it is no hub id (name, or organisation/name)")
    variable = is_offline()
    if variable is not None:
        raise ModelError(
            f"model.path: {hub_id} is no local directory, and {variable} is set and the hub's cache "
            f"({hub_cache()}) does not hold it"
        )
    if not hub_answers():
        raise ModelError(
            f"model.path: {hub_id} is no local directory (working directory {Path.cwd()}), and the hub could not be "
            f"reached; set HF_HUB_OFFLINE=1 to use only its cache ({hub_cache()})"
        )


def require_checkpoint(folder: Path) -> None:
    """Raise ModelError where ``folder`` holds something else; the error says what it is and what to do."""
    names = {path.name for path in folder.iterdir()}
    if MANIFEST in names:
        raise ModelError(
            f"model.path: {folder} is a winner of paretune, compressed already; give the checkpoint that it was made "
            "from (objectives.load opens a winner)"
        )
    if "adapter_config.json" in names and "config.json" not in names:
        raise ModelError(
            f"model.path: {folder} is an adapter (adapter_config.json), not a model; merge it into its base first: "
            "peft.AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload().save_pretrained(folder)"
        )
    if "adapter_config.json" in names:
        raise ModelError(
            f"model.path: {folder} holds an adapter (adapter_config.json) beside its weights, which would be left out; "
            "merge it first (peft: model.merge_and_unload().save_pretrained(folder)), or remove adapter_config.json"
        )
    if "model_index.json" in names and "config.json" not in names:
        raise ModelError(f"model.path: {folder} is a pipeline of diffusers (model_index.json), no language model")
    if any(folder.glob("*.safetensors")):
        return
    foreign = next((what for pattern, what in _FOREIGN.items() if any(folder.glob(pattern))), None)
    if foreign == "pickled weights":
        raise ModelError(
            f"model.path: {folder} has no *.safetensors; pickled weights are not loaded. "
            "Convert with model.save_pretrained(folder) where you trust the file."
        )
    if foreign is not None:
        raise ModelError(f"model.path: {folder} has {foreign}, but no *.safetensors; give the checkpoint in that form")
    if not names:
        raise ModelError(f"model.path: {folder} is empty; give the folder with config.json, weights and tokenizer")


def require_files(folder: Path) -> None:
    """Raise ModelError where weights or tokenizer are missing."""
    if not any(folder.glob("*.safetensors")):
        inside = _checkpoints(folder)
        hint = f"; {inside[0]} has some" if inside else ""
        raise ModelError(f"model.path: {folder} has no *.safetensors{hint}")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(f"model.path: {folder} has no tokenizer (any of {', '.join(TOKENIZERS)})")


def _checkpoints(folder: Path) -> list[Path]:
    """Return the folders inside that look like checkpoints, the last first: trainers write ``checkpoint-500``."""
    inside: Iterable[Path] = (path.parent for path in folder.glob("*/config.json"))
    return sorted((path for path in inside if any(path.glob("*.safetensors"))), reverse=True)


def _asset_folder(name: str) -> Path | None:
    """Return the folder of a ready asset; None where it is built on first use."""
    from objectives import assets

    try:
        return assets.ready(name)
    except assets.AssetError as error:
        raise assets.AssetError(f"model.path: {error}") from error
