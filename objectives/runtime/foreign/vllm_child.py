"""Runs vLLM for another process, in vLLM's own interpreter.

The engine works in this very process, and is stepped by hand: so every pass can be timed, and the hidden states that
the model hands to its head can be read. The logits at any place of a text are then the engine's own, from its own
kernels and cache, without the detour over log-probabilities as Python objects.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count as count_from
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from objectives.runtime.foreign.json_lines import Array, Ids, serve
else:
    from json_lines import serve

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
_SETTINGS = {"enforce_eager": True, "skip_tokenizer_init": True, "enable_prefix_caching": True}


class Vllm:
    """One checkpoint, open in vLLM; ``flags``: arguments of ``vllm.LLM``."""

    def __init__(self, folder: str, flags: Mapping[str, Any]) -> None:
        import torch
        import vllm

        self._vllm, self._torch = vllm, torch
        self._weights = 0
        self._weigh_loading()
        self._engine: Any = vllm.LLM(folder, **{**_SETTINGS, **flags}).llm_engine
        self._runner: Any = self._engine.model_executor.driver_worker.worker.model_runner
        self._numbers = count_from()
        self._states: dict[str, list[tuple[int, Any]]] = {}
        """By request: the hidden states of some of its places, with the first place."""
        self._runner.model.register_forward_hook(self._note)
        self._at_rest, self._most_tokens = _size("VmRSS"), 0

    def facts(self) -> Mapping[str, Any]:
        """Return the bytes of the weights as they lie in memory."""
        return {"weights": self._weights}

    def _weigh_loading(self) -> None:
        """Let the loading of the model tell by how much this process grows: kernels keep weights where no tensor is."""
        from vllm.model_executor.model_loader import base_loader, get_model_cls

        load = base_loader.BaseModelLoader.load_model

        def weighed(loader: Any, vllm_config: Any, model_config: Any, prefix: str = "") -> Any:
            get_model_cls(model_config)  # imports it: code is no weight
            before = _at_rest()
            model = load(loader, vllm_config, model_config, prefix)
            self._weights = _at_rest() - before
            return model

        base_loader.BaseModelLoader.load_model = weighed

    @property
    def _cache_tokens(self) -> int:
        """Return how many tokens the reserved keys and values hold at once."""
        config = self._runner.kv_cache_config
        return int(config.num_blocks * min(group.kv_cache_spec.block_size for group in config.kv_cache_groups))

    def logits(self, texts: Sequence[Ids], wanted: Sequence[Ids]) -> Array:
        """Return the logits [sum of wanted, vocabulary] at places of ``texts``."""
        only_last = all(list(places) == [len(text) - 1] for text, places in zip(texts, wanted))
        names = self._add(texts, 1, reads_cache=only_last)
        kept: dict[str, list[tuple[int, Any]]] = {name: [] for name in names}
        self._states = kept
        while self._engine.has_unfinished_requests():
            self._engine.step()
        self._states = {}
        parts = []
        with self._torch.inference_mode():
            for name, places in zip(names, wanted):
                states = [self._state(kept[name], place) for place in places]
                parts.append(self._runner.model.compute_logits(self._torch.stack(states)).float().cpu().numpy())
        return np.concatenate(parts)

    def _state(self, kept: Sequence[tuple[int, Any]], place: int) -> Any:
        for first, states in kept:
            if first <= place < first + len(states):
                return states[place - first]
        raise RuntimeError(f"vLLM computed no hidden state at place {place}")

    def _note(self, _module: object, _inputs: object, states: Any) -> None:
        """Keep the hidden states of a pass by request and place, where somebody asks for logits."""
        if not self._states:
            return
        runner, batch = self._runner, self._runner.input_batch
        for row, name in enumerate(batch.req_ids):
            start, stop = (int(runner.query_start_loc.np[place]) for place in (row, row + 1))
            asked = next((asked for asked in self._states if name == asked or name.startswith(f"{asked}-")), None)
            if asked is not None:
                first = int(batch.num_computed_tokens_cpu[row])
                self._states[asked].append((first, states[start:stop].clone()))

    def generate(self, texts: Sequence[Ids], count: int, end_phase: Callable[[str], object]) -> Sequence[Ids]:
        """Return the ``count`` likeliest tokens after every text, pass by pass, read from anew."""
        tokens = sum(len(text) + count for text in texts)
        if tokens > self._cache_tokens:  # some texts would wait for others, and no pass would be that of all
            raise MemoryError(
                f"keys and values of {tokens} tokens, runtimes.vllm.kv_cache_gib has room for {self._cache_tokens}"
            )
        self._most_tokens = max(self._most_tokens, tokens)
        names = self._add(texts, count, reads_cache=False)
        written: dict[str, Ids] = {}
        waiting = set(names)
        while self._engine.has_unfinished_requests():
            is_prefill = bool(waiting)
            for output in self._engine.step():
                waiting.discard(output.request_id)
                written[output.request_id] = list(output.outputs[0].token_ids)
            if not (is_prefill and waiting):  # a prefill that takes several passes is one phase
                end_phase("prefill" if is_prefill else "decode")
        return [written[name] for name in names]

    def _add(self, texts: Sequence[Ids], count: int, reads_cache: bool) -> list[str]:
        sampling = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=count,
            ignore_eos=True,
            detokenize=False,
            skip_reading_prefix_cache=not reads_cache,
        )
        names = []
        for text in texts:
            names.append(f"r{next(self._numbers)}")
            prompt = self._vllm.inputs.TokensPrompt(prompt_token_ids=[int(token) for token in text])
            self._engine.add_request(names[-1], prompt, sampling)
        return names

    def weigh(self) -> Mapping[str, Any]:
        """Return by how much this process grew since the last call, and the bytes of keys and values meanwhile."""
        growth, tokens = _size("VmHWM") - self._at_rest, self._most_tokens
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
        self._at_rest, self._most_tokens = _size("VmRSS"), 0
        return {"cache": self._bytes_per_token * tokens, "growth": max(0, growth)}

    @property
    def _bytes_per_token(self) -> int:
        config = self._runner.kv_cache_config
        return int(sum(tensor.size for tensor in config.kv_cache_tensors) // self._cache_tokens)


def _at_rest() -> int:
    """Return the bytes that this process holds beside files, once everything that is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _size("RssAnon")


def _size(name: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


if __name__ == "__main__":
    serve(Vllm)
