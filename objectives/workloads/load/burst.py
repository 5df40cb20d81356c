"""Sends a burst of requests: by clients that each wait for their answer (closed loop), or at a rate (open loop).

In a closed loop a slower server gets fewer requests, so it tells how many users a server bears. In an open loop they
come whether or not the server keeps up, at the moments of a Poisson process, so waiting in line is part of the delay.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from time import perf_counter

from objectives.errors import RequestFailed, TooSlow
from objectives.protocols.serving import Answer, Endpoint
from objectives.workloads.load.client import ask
from objectives.workloads.load.requests import Request

LONGEST = 600.0
"""Seconds after which a request, and so its burst, is given up."""


def moments(count: int, rate: float, seed: str) -> list[float]:
    """Return the seconds at which ``count`` requests of a Poisson process are sent; the first at once."""
    draw = random.Random(seed)
    return list(accumulate((draw.expovariate(rate) for _ in range(count - 1)), initial=0.0))


def send(
    endpoint: Endpoint,
    requests: Sequence[Request],
    clients: int,
    at: Sequence[float] | None,
    start: Callable[[], None],
    end: Callable[[], None],
) -> list[Answer]:
    """Send ``requests`` with at most ``clients`` at a time, and return their answers in the order of the requests.

    ``at``: seconds at which each is sent, if a client is free; None: as soon as one is. ``start`` is called right
    before the first request, ``end`` after the last token. Raises RequestFailed, TooSlow.
    """
    sending = _sent(endpoint, requests, clients, at, start, end)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(sending)
    with ThreadPoolExecutor(1) as other:  # a notebook has a loop in this thread
        return other.submit(asyncio.run, sending).result()


async def _sent(
    endpoint: Endpoint,
    requests: Sequence[Request],
    clients: int,
    at: Sequence[float] | None,
    start: Callable[[], None],
    end: Callable[[], None],
) -> list[Answer]:
    import aiohttp

    # A connection a request: llama.cpp's server closes kept ones as the next request comes.
    connector, patience = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(total=LONGEST)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
        free = asyncio.Semaphore(clients)
        start()
        began = perf_counter()

        async def one(request: Request, moment: float) -> Answer:
            await asyncio.sleep(began + moment - perf_counter())
            due = began + moment  # not when this loop came to it: its own delay is one that clients meet
            async with free:
                answer = await ask(session, endpoint, request, began)
            return answer if at is None else _waited(answer, due - began)

        try:
            async with asyncio.TaskGroup() as group:
                times = [0.0] * len(requests) if at is None else at
                tasks = [group.create_task(one(*pair)) for pair in zip(requests, times, strict=True)]
        except ExceptionGroup as failed:
            raise _first(failed) from failed
        end()
        return [task.result() for task in tasks]


def _waited(answer: Answer, due: float) -> Answer:
    """Return an answer with its times counted from ``due``: in an open loop waiting for a client is a delay."""
    late = answer.sent - due
    return Answer(due, answer.first + late, answer.last + late, answer.gaps, answer.read, answer.written)


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group; what the client's library raises becomes an error of ours."""
    import aiohttp

    error: BaseException = failed.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _first(error)
    if isinstance(error, TimeoutError):
        return TooSlow(f"the server did not answer a request within {LONGEST:.0f} s")
    if isinstance(error, (aiohttp.ClientError, OSError, ValueError)):
        return RequestFailed(f"the server failed a request: {type(error).__name__}: {error}")
    return error
