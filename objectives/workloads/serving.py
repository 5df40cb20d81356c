"""Serving: a server under load, timed as its users see it.

A run is one burst of requests over HTTP. ``concurrency`` is what the batch size is for other workloads: the most
requests at a time, and the slots of the server. Quality and delay pull in opposite directions here as well: more
requests at a time give more tokens per second, and each of them waits longer.
"""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded, Filed
from objectives.protocols.running import PhaseObserver, Workload
from objectives.protocols.serving import Answer, Capacity, Loading, LoadTiming, Serves, Slo
from objectives.settings import FORBID, Count, Name, Natural, Positive
from objectives.types import Head, Phase
from objectives.workloads.load import burst
from objectives.workloads.load import requests as rows

if TYPE_CHECKING:
    from objectives.protocols.phases import Stopwatch
    from objectives.protocols.running import Runner

_FEWEST = 4
"""The fewest requests of a burst."""
_SECONDS = 30.0
"""Seconds for which requests of one burst come at a rate: a server that does not keep up needs time to show."""
_patterns = count()
"""The numbers of the bursts that come at a rate: each has moments of its own."""
_bursts, _process = count(), uuid4().hex
"""The numbers of the bursts of this process, and its name: each burst has random prompts of its own, so that no server
answers them from a cache, not even one that outlives this process."""


@settings(frozen=True, kw_only=True, config=FORBID)
class Serving(Workload, Bounded, Loading, Filed):
    """Sends requests of ``prompt_tokens`` that are answered by ``new_tokens``, at most ``concurrency`` at a time.

    ``request_rate``: requests per second at random moments; None: as fast as they are answered. ``requests``: a jsonl
    file of a user's own (:mod:`objectives.workloads.load.requests`); then ``prompt_tokens`` is the most that a text may
    have, and ``new_tokens`` is for rows that do not say. ``burst``: requests of one run, at least one for every client;
    None: two for every client, all rows of the file, or those of half a minute at a rate, whichever is most.
    ``slo_ttft``, ``slo_tpot``, ``slo_latency``: seconds that a request may take to count for goodput. ``seed``: of the
    random moments.
    """

    concurrency: Count = 1
    request_rate: Positive | None = None
    prompt_tokens: Count = 128
    new_tokens: Annotated[int, Field(strict=True, ge=2)] = 64
    requests: Name | None = None
    burst: Count | None = None
    slo_ttft: Positive | None = None
    slo_tpot: Positive | None = None
    slo_latency: Positive | None = None
    seed: Natural = 0

    @property
    @override
    def batch_size(self) -> int:
        """Return the most requests at a time."""
        return self.concurrency

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def items(self) -> int:
        """Return the output tokens of one burst."""
        return sum(self._lengths)

    @property
    @override
    def tokens_read(self) -> int:
        return self._count * self.prompt_tokens

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        """Return one span: the longest request with its answer."""
        return (Span(("prompt_tokens", "new_tokens"), self._longest),)

    @override
    def capacity(self) -> Capacity:
        return Capacity(self.concurrency, sum(self._longest))

    @override
    def slo(self) -> Slo:
        return Slo(self.slo_ttft, self.slo_tpot, self.slo_latency)

    @override
    def file(self) -> Path | None:
        return None if self.requests is None else Path(self.requests).expanduser().absolute()

    @override
    def file_hash(self) -> str | None:
        return None if self.requests is None else rows.content_hash(self.requests)

    @property
    def _rows(self) -> tuple[rows.Row, ...]:
        return () if self.requests is None else rows.read_rows(self.requests)

    @property
    def _count(self) -> int:
        """Return the requests of a burst; fewer than clients would load the server with fewer than it is said."""
        if self.burst is not None:
            return max(self.burst, self.concurrency)
        at_rate = math.ceil(_SECONDS * (self.request_rate or 0.0))
        return max(_FEWEST, 2 * self.concurrency, len(self._rows), at_rate)

    @property
    def _lengths(self) -> list[int]:
        """Return the output tokens of every request of a burst."""
        own = [row.output_tokens or self.new_tokens for row in self._rows] or [self.new_tokens]
        return [own[place % len(own)] for place in range(self._count)]

    @property
    def _longest(self) -> tuple[int, int]:
        if self.requests is None:
            return self.prompt_tokens, self.new_tokens
        return rows.longest(self._rows, self.prompt_tokens, self.new_tokens)

    @override
    def representative_runs(self) -> dict[Phase, Serving]:
        """Return itself: the server's memory depends on how its requests meet."""
        return {"serve": self}

    @override
    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """Send one burst; latency runs from the first request to the last token of all."""
        self._send(model, watch)

    @override
    def timed(self, model: Runner, watch: Stopwatch) -> LoadTiming:
        answers = self._send(model, watch)
        timing = watch.timing(self.items)
        return LoadTiming(timing.latency, timing.items, cpu=timing.cpu, answers=tuple(answers), rate=self.request_rate)

    def _send(self, model: Runner, watch: PhaseObserver) -> list[Answer]:
        if not isinstance(model, Serves):
            raise Unsupported(f"{type(model).__name__} has no server, which workload=serving needs")
        capacity = self.capacity()
        endpoint = model.server(capacity).endpoint
        requests = self._requests(model)
        rows.require_lengths(requests, capacity.tokens)
        seed = f"{self.seed} {next(_patterns)}"
        at = None if self.request_rate is None else burst.moments(len(requests), self.request_rate, seed)
        return burst.send(
            endpoint, requests, self.concurrency, at, lambda: watch.start(laps=1), lambda: watch.end_phase("serve")
        )

    def _requests(self, model: Runner) -> list[rows.Request]:
        seed = f"{self.seed} {_process} {next(_bursts)}"
        if self.requests is None:
            lengths = self.prompt_tokens, self.new_tokens
            return rows.random_requests(self._count, *lengths, model.tokenizer, model.vocabulary, seed)
        found = self._rows
        return rows.requests_of(found, self._count, self.new_tokens, model.tokenizer, model.vocabulary, seed)
