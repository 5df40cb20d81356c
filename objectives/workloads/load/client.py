"""Sends one request to a server that speaks as OpenAI's does, and times its streamed answer.

A part of the stream may hold several tokens, or none: a server keeps back the first bytes of a character. So tokens are
counted by the server's own ``usage``, which it tells in the last part. The first part with a choice is the first token,
and the last such part is the end, as ``vllm bench serve`` has it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

from objectives.errors import RequestFailed, Unsupported
from objectives.protocols.serving import KEY, Answer, Endpoint
from objectives.workloads.load.requests import Request

if TYPE_CHECKING:
    import aiohttp

PATH = "/v1/completions"
_SHOWN = 200
"""Characters of a server's own message that are shown."""
LOCKED = (401, 403)
"""The statuses of a server that asks for another key."""
_DATA, _DONE = b"data:", b"[DONE]"


@dataclass
class Stream:
    """The parts of one answer as they came: ``times`` of those with a choice, and what the server says of tokens."""

    times: list[float] = field(default_factory=list)
    written: int | None = None
    read: int | None = None

    def take(self, data: bytes, now: float) -> None:
        """Note one part. Raises RequestFailed for an error that the server tells within the stream."""
        part = json.loads(data)
        if not isinstance(part, dict):
            raise RequestFailed(f"the server streams what is no part of an answer: {data[:_SHOWN]!r}")
        if part.get("error"):
            raise RequestFailed(f"the server failed a request: {str(part['error'])[:_SHOWN]}")
        if part.get("choices"):
            self.times.append(now)
        usage = part.get("usage")
        if isinstance(usage, dict):
            self.written, self.read = usage.get("completion_tokens"), usage.get("prompt_tokens")


async def ask(session: aiohttp.ClientSession, endpoint: Endpoint, request: Request, began: float) -> Answer:
    """Send ``request`` and return the times of its answer; ``began``: when the burst did.

    Raises RequestFailed for a refusal, and for an answer of another length than was asked for; Unsupported for a server
    whose tokens cannot be counted.
    """
    body = {
        "model": endpoint.model, "prompt": request.prompt, "max_tokens": request.output_tokens, "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0.0, "ignore_eos": True, **dict(endpoint.more),
    }  # fmt: skip
    stream, sent = Stream(), perf_counter()
    sending = session.post(endpoint.url + PATH, json=body, headers=endpoint.headers, allow_redirects=False)
    async with sending as response:
        if response.status != 200:
            told = (await response.text())[:_SHOWN]
            way = f"; it asks for a key: {KEY}=..." if response.status in LOCKED else ""
            raise RequestFailed(f"the server refused a request with status {response.status}: {told}{way}")
        async for data, now in _parts(response):
            if data != _DONE:
                stream.take(data, now)
    return _answer(stream, request, sent, began)


async def _parts(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[bytes, float]]:
    """Yield the data of every event of a stream, and when it came."""
    left = b""
    async for chunk in response.content.iter_any():
        now = perf_counter()
        *lines, left = (left + chunk).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                yield line[len(_DATA) :].strip(), now


def _answer(stream: Stream, request: Request, sent: float, began: float) -> Answer:
    if not stream.times:
        raise RequestFailed("the server ended a stream without a token")
    if stream.written is None:
        raise Unsupported("the server tells no usage at the end of a stream: its tokens cannot be counted")
    if stream.written != request.output_tokens:
        raise RequestFailed(
            f"the server wrote {stream.written} of {request.output_tokens} tokens: it has to know ignore_eos, and its "
            "context has to hold prompt and answer"
        )
    times = stream.times
    gaps = tuple(later - earlier for earlier, later in pairwise(times))
    return Answer(
        sent - began, times[0] - sent, times[-1] - sent, gaps, stream.read or len(request.prompt), stream.written
    )
