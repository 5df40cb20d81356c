"""Loads a GGUF file in the server of xllamacpp (llama.cpp) and writes on; run by path, see the package."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return what llama.cpp's server answers to ``request``."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = request["model"]
    params.n_parallel, params.warmup, params.verbosity = 1, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 2) // 2)
    params.n_ctx = 256 + max(map(len, request["prompts"])) + request["count"]
    server = xllamacpp.Server(params)
    greedy = {"temperature": 0, "samplers": ["temperature"], "n_probs": 1, "n_predict": 1}
    tokens, logprobs = [], []
    for prompt in request["prompts"]:
        said: list[dict[str, Any]] = []
        for _ in range(request["count"]):
            out = server.handle_completions({**greedy, "prompt": prompt + [each["id"] for each in said]})
            found = (out["choices"][0]["logprobs"] or {}).get("content")
            if not found:  # it keeps to itself a token that ends amid a character
                break
            said += found
        tokens.append([int(each["id"]) for each in said])
        logprobs.append([float(each["logprob"]) for each in said])
    lengths = [
        server.handle_completions({**greedy, "prompt": text})["usage"]["prompt_tokens"] for text in request["texts"]
    ]
    engine = f"llama.cpp (xllamacpp {version('xllamacpp')})"
    return {"engine": engine, "tokens": tokens, "logprobs": logprobs, "lengths": lengths}


if __name__ == "__main__":
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(answer(request)), encoding="utf-8")
    os._exit(0)  # its server's threads are in no hurry to end
