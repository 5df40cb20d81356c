"""Loads a checkpoint in vLLM and writes on; run by path, see the package."""

import json
import os
import sys
from pathlib import Path
from typing import Any

_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return what vLLM answers to ``request``."""
    import vllm

    longest = max(map(len, request["prompts"])) + request["count"]
    engine = vllm.LLM(
        request["model"], dtype="bfloat16", max_model_len=longest, max_num_seqs=len(request["prompts"]),
        enforce_eager=True, trust_remote_code=request["trusted"],
    )  # fmt: skip
    how = vllm.SamplingParams(temperature=0, max_tokens=request["count"], logprobs=0, ignore_eos=True)
    prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
    said = [each.outputs[0] for each in engine.generate(prompts, how, use_tqdm=False)]
    tokenizer = engine.get_tokenizer()
    return {
        "engine": f"vLLM {vllm.__version__}",
        "tokens": [list(each.token_ids) for each in said],
        "logprobs": [[step[token].logprob for token, step in zip(each.token_ids, each.logprobs)] for each in said],
        "lengths": [len(tokenizer(text).input_ids) for text in request["texts"]],
    }


if __name__ == "__main__":
    os.environ.update(_VARIABLES)
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(answer(request)), encoding="utf-8")
    os._exit(0)  # its workers are in no hurry to end
