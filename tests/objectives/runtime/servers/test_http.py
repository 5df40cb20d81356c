"""What a load asks stays on this machine, whatever a server answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from objectives.errors import RequestFailed, Unsupported
from objectives.protocols.serving import Endpoint
from objectives.runtime.servers import http
from objectives.workloads.load.burst import send
from objectives.workloads.load.requests import Request


class _Elsewhere(BaseHTTPRequestHandler):
    """Sends everybody to another server."""

    place = ""

    def do_GET(self) -> None:
        self.send_response(307)
        self.send_header("Location", self.place + self.path)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Listening(BaseHTTPRequestHandler):
    """Notes who asks."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def led_away() -> Iterator[tuple[str, list[str]]]:
    """A server that leads elsewhere, and what is asked there."""
    asked: list[str] = []
    other = ThreadingHTTPServer((http.HOST, 0), type("Listening", (_Listening,), {"asked": asked}))
    place = f"http://{http.HOST}:{other.server_address[1]}"
    first = ThreadingHTTPServer((http.HOST, 0), type("Elsewhere", (_Elsewhere,), {"place": place}))
    for server in (other, first):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{http.HOST}:{first.server_address[1]}", asked
    for server in (other, first):
        server.shutdown()
        server.server_close()


def test_nothing_follows_a_server_that_leads_elsewhere(led_away: tuple[str, list[str]]) -> None:
    url, asked = led_away
    assert not http.is_healthy(url)
    with pytest.raises(Unsupported, match="tells no models"):
        http.models_of(Endpoint(url, ""))
    with pytest.raises(RequestFailed, match="status 307"):
        send(Endpoint(url, "m"), [Request((1, 2, 3), 2)], 1, None, lambda: None, lambda: None)
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1", "http://127.0.0.1:0", "http://127.0.0.1:8000/v1", "https://127.0.0.1:1", "http://10.0.0.1:1",
        "http://user@127.0.0.1:1", "http://127.0.0.1:1?x=1", "file:///etc/passwd", "http://127.0.0.1.nip.io:1",
    ],
)  # fmt: skip
def test_only_a_server_on_this_machine_is_taken(url: str) -> None:
    with pytest.raises(ValueError, match="url must be http://127"):
        http.require_loopback(url)
