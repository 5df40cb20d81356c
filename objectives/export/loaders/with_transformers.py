"""Loads a checkpoint in transformers and writes on; run by path, see the package."""

import json
import sys
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers answers to ``request``."""
    import torch
    import transformers

    given = {"local_files_only": True, "trust_remote_code": request["trusted"]}
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(request["model"], dtype="auto", **given)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["model"], **given)
    tokens, logprobs = [], []
    with torch.inference_mode():
        for prompt in request["prompts"]:
            ids, cache, said = torch.tensor([prompt]), None, []
            for _ in range(request["count"]):
                out = model(input_ids=ids, past_key_values=cache, use_cache=True)
                best = out.logits[0, -1].float().log_softmax(0).max(0)
                ids, cache = best.indices.view(1, 1), out.past_key_values
                said.append((int(best.indices), float(best.values)))
            tokens.append([token for token, _ in said])
            logprobs.append([value for _, value in said])
    return {
        "engine": f"transformers {transformers.__version__}",
        "tokens": tokens,
        "logprobs": logprobs,
        "lengths": [len(tokenizer(text).input_ids) for text in request["texts"]],
    }


if __name__ == "__main__":
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(answer(request)), encoding="utf-8")
