"""Our figures of a server under load beside those of other load generators, on the same server and in turns.

    python benchmarks/serving.py [--guidellm BIN] [--vllm PYTHON] [--rounds 5] [--concurrency 4] [--out JSON]
                                 [--planted]

Serves SmolLM2-135M in 8 bits on llama.cpp's server. Each generator sends the same number of requests of the same
lengths with the same number of clients, and tells its own figures: ``guidellm run`` and ``vllm bench serve``, each in
an environment of its own; of vLLM its interpreter is given. Prints medians over the rounds, and each generator's over
ours. It needs ``paretune fetch smollm2-135m``. ``--planted``: instead of llama.cpp a server that waits 0.3 s before
the first token and 0.05 s before every other one: what everybody should find is known then, however busy the machine
is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

sys.path.append(sys.path.pop(0))  # this file is no package of ours

import torch
from aiohttp import web
from transformers import AutoTokenizer

from objectives.assets import locate
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.devices.stopwatch import WallStopwatch
from objectives.measuring.load import load_metrics
from objectives.models import Checkpoint
from objectives.protocols.serving import Endpoint, Server
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.formats import gguf_weights
from objectives.runtime.servers import http, llama_server
from objectives.workloads.serving import Serving

ASSET = "smollm2-135m"
SHOWN = ("request_throughput", "throughput", "ttft", "ttft.p95", "tpot", "tpot.p95", "latency.p50", "latency.p95")
Figures = Mapping[str, float]


class Served:
    """Stands where a runner does: a server and what requests are made from."""

    vocabulary = 49152

    def __init__(self, server: Server, tokenizer: Any) -> None:
        self._server, self.tokenizer = server, tokenizer

    def server(self, _capacity: object) -> Server:
        return self._server


def ours(load: Serving, served: Served) -> Figures:
    """Our own figures of one burst."""
    return load_metrics(load.timed(served, WallStopwatch()), load.slo())  # type: ignore[arg-type]


def run(words: list[str]) -> None:
    """Run a generator; what it prints is shown where it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900, check=False)
    if ended.returncode:
        raise SystemExit(f"{words[0]} failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}")


_BENCH = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; parser = argparse.ArgumentParser(); "
    "add_cli_args(parser); main(parser.parse_args())"
)
"""What ``vllm bench serve`` runs: the command itself asks for a package that builds for CPUs call otherwise."""


def of_vllm(python: str, load: Serving, url: str, name: str, folder: Path) -> Figures:
    """The figures of ``vllm bench serve``, in seconds."""
    run([
        python, "-c", _BENCH, "--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions",
        "--model", name, "--tokenizer", str(locate(ASSET)), "--dataset-name", "random",
        "--random-input-len", str(load.prompt_tokens), "--random-output-len", str(load.new_tokens),
        "--num-prompts", str(load.burst), "--max-concurrency", str(load.concurrency), "--ignore-eos",
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,95", "--save-result",
        "--result-dir", str(folder), "--result-filename", "vllm.json", "--disable-tqdm",
    ])  # fmt: skip
    told = json.loads((folder / "vllm.json").read_text())
    if told["completed"] != load.burst:
        print(f"vllm bench serve: {told['completed']} of {load.burst} requests completed")
    pairs = {"ttft": "median_ttft_ms", "ttft.p95": "p95_ttft_ms", "tpot": "median_tpot_ms", "tpot.p95": "p95_tpot_ms",
             "latency.p50": "median_e2el_ms", "latency.p95": "p95_e2el_ms"}  # fmt: skip
    rates = {"request_throughput": told["request_throughput"], "throughput": told["output_throughput"]}
    return {**rates, **{ours: told[theirs] / 1e3 for ours, theirs in pairs.items()}}


def of_guidellm(binary: str, load: Serving, endpoint: Endpoint, folder: Path) -> Figures:
    """The figures of ``guidellm run``, in seconds."""
    file, key = folder / "guidellm.json", endpoint.key and f",api_key={endpoint.key}"
    asked = f"target={endpoint.url},model={endpoint.model},request_format=/v1/completions,http2=false{key}"
    run([
        binary, "run", "--disable-console",
        "--backend", f"kind=openai_http,{asked}",
        "--profile", f"kind=concurrent,streams={load.concurrency}",
        "--data", f"kind=synthetic_text,prompt_tokens={load.prompt_tokens},output_tokens={load.new_tokens}",
        "--tokenizer", f"kind=hf_auto,model={locate(ASSET)}", "--constraint", f"kind=max_requests,count={load.burst}",
        "--output", f"kind=json,path={file}",
    ])  # fmt: skip
    told = json.loads(file.read_text())["benchmarks"][0]["metrics"]

    def of(metric: str, end: str) -> float:
        found = told[metric]["successful"]
        return float(found["percentiles"][end] if end.startswith("p") else found[end])

    return {
        "request_throughput": of("requests_per_second", "mean"),
        "throughput": of("output_tokens_per_second", "mean"),
        "ttft": of("time_to_first_token_ms", "median") / 1e3,
        "ttft.p95": of("time_to_first_token_ms", "p95") / 1e3,
        "tpot": of("inter_token_latency_ms", "median") / 1e3,
        "tpot.p95": of("inter_token_latency_ms", "p95") / 1e3,
        "latency.p50": of("request_latency", "median"),
        "latency.p95": of("request_latency", "p95"),
    }


FIRST, GAP = 0.3, 0.05
"""Seconds that the planted server waits before the first token, and before every other one."""


async def planted(request: web.Request) -> web.StreamResponse:
    """Answer a request token by token, after planted delays."""
    asked = await request.json()
    count = int(asked.get("max_tokens") or asked["max_completion_tokens"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    prompt = asked["prompt"]
    usage = {"prompt_tokens": len(prompt) if isinstance(prompt, list) else 1, "completion_tokens": count}
    for place in range(count):
        await asyncio.sleep(GAP if place else FIRST)
        part = {"id": "1", "object": "text_completion", "choices": [{"index": 0, "text": " a", "finish_reason": None}]}
        await response.write(b"data: " + json.dumps(part).encode() + b"\n\n")
    usage["total_tokens"] = sum(usage.values())
    last = {"id": "1", "object": "text_completion", "choices": [], "usage": usage}
    await response.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
    return response


def plant(port: int) -> None:
    """Run the planted server."""

    async def healthy(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "planted", "object": "model"}]})

    app = web.Application()
    app.add_routes([web.post("/v1/completions", planted), web.get("/health", healthy), web.get("/v1/models", healthy)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


@contextmanager
def planted_server() -> Iterator[Any]:
    """Run the planted server in a process of its own meanwhile."""
    port = http.free_port()
    process = subprocess.Popen([sys.executable, __file__, "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        while not http.is_healthy(url):
            time.sleep(0.1)
        yield SimpleNamespace(endpoint=Endpoint(url, "planted"))
    finally:
        process.kill()
        process.wait()


@contextmanager
def llama(asked: argparse.Namespace, folder: Path, tokenizer: Any) -> Iterator[Any]:
    """Serve SmolLM2 in 8 bits on llama.cpp's server meanwhile."""
    torch.set_num_threads(asked.threads)
    model = Checkpoint(path=f"asset:{ASSET}", head="causal_lm").load()
    RoundToNearest(bits=8).stored_in_blocks(32).quantize_(model, Statistics(model, {}), Cpu())
    gguf_weights.write(model, folder / "model.gguf")
    room = Serving(concurrency=asked.concurrency, prompt_tokens=2 * asked.prompt, new_tokens=asked.new).capacity()
    server = llama_server.start(folder / "model.gguf", tokenizer, Served.vocabulary, asked.threads, room, 16, True)
    yield server
    server.close()


def table(rounds: Mapping[str, list[Figures]]) -> str:
    """Return medians over the rounds, and every generator's over ours, round by round."""
    lines = [f"| | {' | '.join(SHOWN)} |", f"|{'---|' * (len(SHOWN) + 1)}"]
    for name, found in rounds.items():
        lines.append(f"| {name} | {' | '.join(f'{median(each[key] for each in found):.4g}' for key in SHOWN)} |")
    for name, found in rounds.items():
        if name != "ours":
            ratios = [
                median(theirs[key] / own[key] for theirs, own in zip(found, rounds["ours"], strict=True))
                for key in SHOWN
            ]
            lines.append(f"| {name} / ours | {' | '.join(f'{each:.3f}' for each in ratios)} |")
    return "\n".join(lines)


def measured(
    asked: argparse.Namespace, load: Serving, server: Any, tokenizer: Any, folder: Path
) -> dict[str, list[Figures]]:
    """Let everybody measure in turns."""
    url, name, served = server.endpoint.url, server.endpoint.model, Served(server, tokenizer)
    os.environ["OPENAI_API_KEY"] = server.endpoint.key  # which vLLM's generator sends
    everybody: dict[str, Callable[[], Figures]] = {"ours": lambda: ours(load, served)}
    if asked.vllm:
        everybody["vllm bench serve"] = lambda: of_vllm(asked.vllm, load, url, name, folder)
    if asked.guidellm:
        everybody["guidellm"] = lambda: of_guidellm(asked.guidellm, load, server.endpoint, folder)
    ours(load, served)  # warms up
    rounds: dict[str, list[Figures]] = {each: [] for each in everybody}
    for number in range(asked.rounds):
        for each, measure in everybody.items():
            rounds[each].append(measure())
            print(number, each, {key: round(rounds[each][-1][key], 4) for key in SHOWN}, flush=True)
    return rounds


def main() -> None:
    """Serve, let everybody measure in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidellm")
    parser.add_argument("--vllm")
    for name, number in (("rounds", 5), ("concurrency", 4), ("threads", 1), ("prompt", 64), ("new", 32), ("burst", 24)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.port:
        plant(asked.port)
        return
    load = Serving(concurrency=asked.concurrency, prompt_tokens=asked.prompt, new_tokens=asked.new, burst=asked.burst)
    tokenizer = AutoTokenizer.from_pretrained(locate(ASSET))
    with TemporaryDirectory() as place:
        folder = Path(place)
        with planted_server() if asked.planted else llama(asked, folder, tokenizer) as server:
            rounds = measured(asked, load, server, tokenizer, folder)
    text = table(rounds)
    print(text)
    if asked.out:
        asked.out.write_text(json.dumps({name: [dict(each) for each in found] for name, found in rounds.items()}))


if __name__ == "__main__":
    main()
