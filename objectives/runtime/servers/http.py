"""Asks a server on loopback whether it is ready, and which models it has."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from objectives.errors import Unsupported
from objectives.protocols.serving import Endpoint

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost")
_SECONDS = 5.0


def require_loopback(url: str) -> str:
    """Return ``url`` without a slash at its end. Raises ValueError for any place but this machine.

    A setting may come from anybody, and requests would go where it says.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"no URL: {error}; got {url!r}") from error
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and parts.username is None
    if parts.scheme != "http" or parts.hostname not in LOOPBACK or not port or not plain:
        raise ValueError(f"url must be http://{HOST}:PORT or http://localhost:PORT, without a path; got {url!r}")
    return f"http://{parts.hostname}:{port}"


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def is_healthy(url: str) -> bool:
    """Return whether a server answers and has loaded its model."""
    try:
        with _opener.open(f"{url}/health", timeout=_SECONDS) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def models_of(endpoint: Endpoint) -> list[str]:
    """Return the names of the models that a server has. Raises Unsupported where it is none of OpenAI's kind."""
    url = endpoint.url
    try:
        with _opener.open(
            urllib.request.Request(f"{url}/v1/models", headers=endpoint.headers), timeout=_SECONDS
        ) as response:
            found: Mapping[str, Any] = json.load(response)
        return [str(one["id"]) for one in found["data"]]
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError) as error:
        raise Unsupported(f"{url}/v1/models tells no models: {error}") from error


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follows no answer that leads elsewhere."""

    @override
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Staying())  # loopback needs no proxy
