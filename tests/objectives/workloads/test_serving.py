"""A load: requests, clients and their times, against a server whose every delay is planted."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydantic
import pytest

from objectives.content_hash import digest
from objectives.devices.stopwatch import WallStopwatch
from objectives.errors import DataError, ObjectiveError, RequestFailed, Unsupported
from objectives.measuring.interleaved import merge, summarise
from objectives.measuring.load import load_metrics, overload
from objectives.metrics import METRICS
from objectives.protocols.serving import Answer, Capacity, Endpoint, LoadTiming, Slo
from objectives.runtime.servers import http
from objectives.workloads.load import burst
from objectives.workloads.load.requests import longest, random_requests, read_rows, requests_of, require_lengths
from objectives.workloads.serving import Serving

FIRST, GAP = 0.04, 0.01


@dataclass
class Planted:
    """What a server does: seconds to the first token and between two; ``parts``: how many tokens each part holds."""

    first: float = FIRST
    gap: float = GAP
    parts: tuple[int, ...] = ()
    status: int = 200
    usage: bool = True
    short: int = 0
    error: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def moved(self, by: int) -> None:
        with self.lock:
            self.open += by
            self.most = max(self.most, self.open)


@contextmanager
def serving(planted: Planted) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "one"}, {"id": "two"}]}).encode() if "models" in self.path else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            planted.seen.append(asked)
            planted.moved(1)
            self.send_response(planted.status)
            self.end_headers()
            if planted.status == 200:
                self.answer(asked)
            else:
                self.wfile.write(b"no room")
            planted.moved(-1)

        def answer(self, asked: dict[str, Any]) -> None:
            parts = planted.parts or (1,) * asked["max_tokens"]
            time.sleep(planted.first)
            for place, _ in enumerate(parts):
                if place:
                    time.sleep(planted.gap)
                self.tell({"choices": [{"text": "" if place % 2 else "x"}]})
            if planted.error:
                self.tell({"error": {"message": planted.error}})
            if planted.usage:
                written = asked["max_tokens"] - planted.short
                self.tell(
                    {"choices": [], "usage": {"completion_tokens": written, "prompt_tokens": len(asked["prompt"])}}
                )
            self.wfile.write(b"data: [DONE]\n\n")

        def tell(self, part: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(part).encode() + b"\n\n")
            self.wfile.flush()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Runner:
    """Stands for a model that is served at ``url``."""

    vocabulary, tokenizer = 50, None

    def __init__(self, url: str) -> None:
        self.url, self.asked = url, list[Capacity]()

    def server(self, capacity: Capacity) -> Any:
        self.asked.append(capacity)
        return SimpleNamespace(endpoint=Endpoint(self.url, "one", (("cache_prompt", False),)))


def timed(load: Serving, planted: Planted) -> LoadTiming:
    with serving(planted) as url:
        return load.timed(Runner(url), WallStopwatch())  # type: ignore[arg-type]


# ---- clients


def test_so_many_clients_send_and_each_waits_for_its_answer() -> None:
    planted = Planted()
    timing = timed(Serving(concurrency=3, burst=7, prompt_tokens=5, new_tokens=4), planted)
    assert planted.most == 3
    assert len(timing.answers) == len(planted.seen) == 7
    rounds, each = 3, FIRST + 3 * GAP
    assert rounds * each <= timing.latency[0] < 3 * rounds * each
    assert timing.items == 7 * 4


def test_what_was_planted_is_what_is_measured() -> None:
    timing = timed(Serving(burst=5, prompt_tokens=5, new_tokens=6), Planted())
    ttft = np.median([answer.first for answer in timing.answers])
    tpot = np.median([answer.tpot for answer in timing.answers])  # type: ignore[arg-type]
    assert FIRST <= ttft < 2.5 * FIRST
    assert GAP <= tpot < 2.5 * GAP
    assert all(len(answer.gaps) == 5 and answer.read == 5 and answer.written == 6 for answer in timing.answers)


def test_tokens_are_counted_by_the_servers_usage_whatever_its_parts_hold() -> None:
    timing = timed(Serving(burst=2, new_tokens=9), Planted(parts=(1, 4, 4)))
    (answer, _) = timing.answers
    assert answer.written == 9
    assert len(answer.gaps) == 2
    assert answer.tpot == pytest.approx(sum(answer.gaps) / 8)


def test_a_request_asks_for_exactly_so_many_tokens_and_for_no_cache() -> None:
    planted = Planted()
    timed(Serving(burst=1, prompt_tokens=7, new_tokens=3), planted)
    (seen,) = planted.seen
    assert seen["max_tokens"] == 3
    assert seen["ignore_eos"] is True
    assert seen["cache_prompt"] is False
    assert len(seen["prompt"]) == 7
    assert seen["stream_options"] == {"include_usage": True}


def test_every_burst_has_other_prompts() -> None:
    planted = Planted(first=0.0, gap=0.0)
    with serving(planted) as url:
        for _ in range(2):
            Serving(burst=2, prompt_tokens=8).timed(Runner(url), WallStopwatch())  # type: ignore[arg-type]
    prompts = {tuple(seen["prompt"]) for seen in planted.seen}
    assert len(prompts) == 4


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        (Planted(short=2), "wrote 2 of 4 tokens: it has to know ignore_eos"),
        (Planted(usage=False), "tells no usage"),
        (Planted(status=503), "status 503: no room"),
        (Planted(error="out of slots"), "out of slots"),
    ],
)
def test_a_request_that_fails_fails_the_burst_in_a_line(planted: Planted, told: str) -> None:
    with pytest.raises((RequestFailed, Unsupported), match=told) as caught:
        timed(Serving(burst=3, new_tokens=4, concurrency=2), planted)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_is_told_in_a_line() -> None:
    load, port = Serving(burst=1), http.free_port()
    with pytest.raises(RequestFailed, match="failed a request"):
        load.timed(Runner(f"http://127.0.0.1:{port}"), WallStopwatch())  # type: ignore[arg-type]


# ---- arrivals


def test_moments_are_those_of_a_poisson_process_and_the_same_for_a_seed() -> None:
    moments = burst.moments(4000, 20.0, "1")
    assert moments == burst.moments(4000, 20.0, "1") != burst.moments(4000, 20.0, "2")
    gaps = np.diff(moments)
    assert gaps.mean() == pytest.approx(1 / 20.0, rel=0.06)
    assert gaps.std() == pytest.approx(1 / 20.0, rel=0.1)
    assert moments[0] == 0.0


def test_at_a_rate_waiting_for_a_client_is_part_of_the_delay() -> None:
    load = Serving(burst=4, new_tokens=2, concurrency=1, request_rate=1000.0)
    first, *_, last = timed(load, Planted()).answers
    assert first.first < 2.5 * FIRST
    assert last.first > 4 * FIRST


def test_every_burst_at_a_rate_has_moments_of_its_own_and_a_notebook_may_send_it() -> None:
    load, planted = Serving(burst=3, new_tokens=2, concurrency=3, request_rate=20.0), Planted(first=0.0, gap=0.0)

    async def cell() -> list[list[float]]:
        with serving(planted) as url:
            told = [load.timed(Runner(url), WallStopwatch()) for _ in range(2)]  # type: ignore[arg-type]
        return [[answer.sent for answer in each.answers] for each in told]

    first, second = asyncio.run(cell())
    assert np.abs(np.subtract(first, second)).max() > 1e-3


def test_a_server_that_does_not_keep_up_with_a_rate_is_told() -> None:
    slow = timed(Serving(burst=6, new_tokens=2, concurrency=1, request_rate=1000.0), Planted())
    (note,) = overload(slow)
    assert "1000 requests per second came" in note.text
    assert not overload(replace(slow, rate=None))
    assert not overload(replace(slow, rate=0.5 / slow.latency[0]))


# ---- requests


def rows_of(tmp_path: Path, *lines: object) -> str:
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(file)


class Tokenizer:
    """Makes a token of every word."""

    chat_template = "x"

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=[len(word) for word in text.split()])

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> dict[str, list[int]]:
        return {"input_ids": [9, *(len(message["content"]) for message in messages)]}


def test_a_users_file_is_read_row_by_row_and_begins_anew_after_the_last(tmp_path: Path) -> None:
    file = rows_of(
        tmp_path, {"prompt": "to be or not"}, {"messages": [{"role": "user", "content": "why"}], "max_tokens": 5},
        {"prompt_tokens": [7, 8], "output_tokens": 2}, {"prompt_tokens": 6}, "",
    )  # fmt: skip
    rows = read_rows(file)
    made = requests_of(rows, 5, 3, Tokenizer(), 50, "s")
    assert [request.prompt for request in made[:3]] == [(2, 2, 2, 3), (9, 3), (7, 8)]
    assert [request.output_tokens for request in made] == [3, 5, 2, 3, 3]
    assert len(made[3].prompt) == 6
    assert made[4].prompt == made[0].prompt
    assert longest(rows, 16, 3) == (16, 5)
    load = Serving(requests=file, prompt_tokens=16, new_tokens=3, concurrency=2)
    assert load.items == 3 + 5 + 2 + 3
    assert load.capacity() == Capacity(2, 21)


def test_a_burst_has_a_request_for_every_client_and_those_of_half_a_minute(tmp_path: Path) -> None:
    file = rows_of(tmp_path, {"prompt": "x"}, {"prompt": "y"}, {"prompt": "z"})
    for load, wanted in (
        (Serving(requests=file), 4), (Serving(requests=file, concurrency=16), 32), (Serving(requests=file, burst=2), 2),
        (Serving(burst=8, concurrency=16), 16), (Serving(concurrency=3), 6), (Serving(request_rate=2.0), 60),
        (Serving(request_rate=0.1, concurrency=4), 8), (Serving(request_rate=2.0, burst=5), 5),
    ):  # fmt: skip
        assert load.items == wanted * load.new_tokens, load


def test_the_longest_request_is_one_row(tmp_path: Path) -> None:
    rows = read_rows(
        rows_of(tmp_path, {"prompt_tokens": 1800, "output_tokens": 100}, {"prompt_tokens": 100, "output_tokens": 1000})
    )
    assert longest(rows, 16, 3) == (1800, 100)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens", "max_completion_tokens", "completion_tokens", "max_new_tokens", "output_len", "output_length",
        "n_predict",
    ],
)  # fmt: skip
def test_lengths_are_known_by_the_names_that_others_give_them(tmp_path: Path, name: str) -> None:
    (row,) = read_rows(rows_of(tmp_path, {"prompt": "x", name: 7, "min_tokens": 1, "prompt_id": 3, "message": "y"}))
    assert row.output_tokens == 7
    with pytest.raises(DataError, match=f"{name} must be an integer >= 1, got 0"):
        read_rows(rows_of(tmp_path, {"prompt": "x", name: 0}))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON"),
        ({"text": "x"}, "one of prompt, messages, prompt_tokens expected"),
        ({"prompt": "x", "messages": []}, "got prompt, messages"),
        ({"prompt": "x", "output_tokens": 0}, "output_tokens must be an integer >= 1"),
        ({"prompt": 5}, "prompt must be a text"),
        ({"prompt_tokens": [1, -2]}, "ids or their number"),
        ({"messages": ["x"]}, "a list of {role, content}"),
        ({"prompt": "x", "ouput_tokens": 3}, "unknown field 'ouput_tokens'; did you mean output_tokens"),
        ("[" * 200_000, "no JSON"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, line: object, told: str) -> None:
    with pytest.raises(DataError, match="workload.requests.*line 2.*" + told.replace("{", r"\{")):
        read_rows(rows_of(tmp_path, {"prompt": "x"}, line))


def test_a_text_may_hold_any_end_of_line_and_a_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    told = "one\u2028two\u0085three"
    file.write_text("\ufeff" + json.dumps({"prompt": told, "id": 7}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert [row.text for row in read_rows(str(file))] == [told]


def test_texts_need_a_tokenizer_and_requests_fit_into_the_slots(tmp_path: Path) -> None:
    rows = read_rows(rows_of(tmp_path, {"prompt": "a b c"}))
    with pytest.raises(DataError, match="no tokenizer"):
        requests_of(rows, 1, 3, None, 50, "s")
    require_lengths(requests_of(rows, 1, 3, Tokenizer(), 50, "s"), 6)
    with pytest.raises(ObjectiveError, match=r"workload\.prompt_tokens=3"):
        require_lengths(requests_of(rows, 1, 3, Tokenizer(), 50, "s"), 5)


def test_another_file_is_another_workload_to_the_cache(tmp_path: Path) -> None:
    load = Serving(requests=rows_of(tmp_path, {"prompt": "x"}))
    before = digest(load)
    rows_of(tmp_path, {"prompt": "y"})
    assert digest(load) != before


def test_random_prompts_have_ids_of_the_vocabulary() -> None:
    made = random_requests(50, 20, 4, None, 9, "s")
    ids = {token for request in made for token in request.prompt}
    assert ids == set(range(3, 9))
    assert made == random_requests(50, 20, 4, None, 9, "s")
    special = SimpleNamespace(all_special_ids=[4, 7])
    assert {token for one in random_requests(50, 20, 4, special, 9, "s") for token in one.prompt} == {3, 5, 6, 8}
    only = SimpleNamespace(all_special_ids=range(9))  # some id has to be sent
    assert random_requests(1, 2, 4, only, 9, "s")


def test_rows_that_no_model_can_read_are_refused_by_their_number(tmp_path: Path) -> None:
    class Refusing(Tokenizer):
        chat_template = "{{ 1 / 0 }}"

        def apply_chat_template(self, *_: object, **__: object) -> None:
            raise ZeroDivisionError("division by zero")

    rows = read_rows(rows_of(tmp_path, {"prompt": "a"}, {"prompt_tokens": [49, 50]}))
    with pytest.raises(DataError, match="row 2 has id 50, and the model has 50"):
        requests_of(rows, 2, 3, Tokenizer(), 50, "s")
    rows = read_rows(rows_of(tmp_path, {"messages": [{"role": "user"}]}))
    with pytest.raises(DataError, match=r"the chat template refuses .*ZeroDivisionError") as caught:
        requests_of(rows, 1, 3, Refusing(), 50, "s")
    assert "\n" not in str(caught.value)


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "halves.jsonl"
    file.write_text('{"prompt": "a \\ud800 b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: no JSON"):
        read_rows(str(file))


def test_settings_are_checked() -> None:
    for wrong in ({"concurrency": 0}, {"request_rate": 0.0}, {"new_tokens": 1}, {"slo_ttft": -1.0}, {"batch_size": 2}):
        with pytest.raises(pydantic.ValidationError):
            Serving(**wrong)  # type: ignore[arg-type]


# ---- statistics


def answers() -> tuple[Answer, ...]:
    return tuple(Answer(0.0, 0.1 * k, 0.1 * k + 0.9, (0.3, 0.3, 0.3), 10, 4) for k in range(1, 11))


def test_percentiles_are_of_all_requests_and_rates_of_all_seconds() -> None:
    load = Serving(slo_ttft=0.5, slo_latency=1.25)
    one = LoadTiming((2.0,), 20, answers=answers()[:5])
    other = LoadTiming((3.0,), 20, answers=answers()[5:])
    metrics = summarise(merge([one, other]), load)
    assert metrics["ttft"] == pytest.approx(0.55)
    assert metrics["ttft.p95"] == pytest.approx(0.955)
    assert (metrics["tpot"], metrics["tpot.p99"]) == pytest.approx((0.3, 0.3))
    assert metrics["latency.p50"] == pytest.approx(1.45)
    assert metrics["request_throughput"] == pytest.approx(10 / 5.0)
    assert metrics["prompt_throughput"] == pytest.approx(100 / 5.0)
    assert metrics["throughput"] == pytest.approx(20 / 2.5)
    assert metrics["goodput"] == pytest.approx(3 / 5.0)
    assert metrics.keys() <= METRICS.keys()


def test_goodput_needs_an_objective_and_counts_requests_that_keep_all_of_it() -> None:
    timing = LoadTiming((1.0,), 40, answers=answers())
    assert "goodput" not in load_metrics(timing, Slo())
    assert load_metrics(timing, Slo(tpot=0.31))["goodput"] == 10
    assert load_metrics(timing, Slo(tpot=0.29))["goodput"] == 0
    assert load_metrics(timing, Slo(ttft=0.31, tpot=0.31))["goodput"] == 3


# ---- addresses


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1", "http://me@127.0.0.1:80", "http://127.0.0.1:80/v1",
     "http://127.0.0.1.example.org:80", "file:///etc/passwd", "http://localhost:99999"],
)  # fmt: skip
def test_only_this_machine_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        http.require_loopback(url)


def test_loopback_is_taken_with_and_without_a_slash() -> None:
    assert http.require_loopback("http://localhost:80/") == "http://localhost:80"
    with serving(Planted()) as url:
        assert http.models_of(Endpoint(url, "")) == ["one", "two"]
        assert http.is_healthy(url)
    assert not http.is_healthy(url)
