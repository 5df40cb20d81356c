"""Runs ONNX Runtime GenAI for a benchmark, in its own interpreter: what Olive's users serve on a CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from objectives.runtime.foreign.json_lines import Array, Ids, serve
else:
    from json_lines import serve


class GenAi:
    """A folder of the model builder, open in onnxruntime-genai; texts of a batch have one length."""

    def __init__(self, folder: str, flags: Mapping[str, Any]) -> None:
        import onnxruntime_genai

        before = _resident()
        self._library: Any = onnxruntime_genai
        self._model: Any = onnxruntime_genai.Model(folder)
        self._weights = _resident() - before
        self._vocabulary, self._bytes_per_token = flags["vocabulary"], flags["kv_bytes_per_token"]
        self._most_tokens = 0

    def facts(self) -> Mapping[str, Any]:
        """Return the size of the vocabulary, and by how much this process grew while the model was loaded."""
        return {"vocabulary": self._vocabulary, "weights": self._weights}

    def logits(self, texts: Sequence[Ids], wanted: Sequence[Ids]) -> Array:
        """Return the logits [sum of wanted, vocabulary] at places of ``texts``."""
        parts = []
        for text, places in zip(texts, wanted):
            generator = self._generator([text], 1)
            logits = np.asarray(generator.get_output("logits"), np.float32)[0]
            parts.append(logits[np.asarray(places) - len(text) + len(logits)])
        return np.concatenate(parts)

    def generate(self, texts: Sequence[Ids], count: int, end_phase: Callable[[str], object]) -> Sequence[Ids]:
        """Return the ``count`` likeliest tokens after every text, pass by pass."""
        self._most_tokens = max(self._most_tokens, sum(len(text) + count for text in texts))
        generator = self._generator(texts, count)
        for step in range(count):
            generator.generate_next_token()
            end_phase("decode" if step else "prefill")
        return [generator.get_sequence(row)[-count:].tolist() for row in range(len(texts))]

    def _generator(self, texts: Sequence[Ids], count: int) -> Any:
        length = len(texts[0]) + count
        params = self._library.GeneratorParams(self._model)
        params.set_search_options(batch_size=len(texts), max_length=length, min_length=length, do_sample=False)
        generator = self._library.Generator(self._model, params)
        generator.append_tokens(np.asarray(texts, np.int32))
        return generator

    def weigh(self) -> Mapping[str, Any]:
        """Return the bytes of keys and values since the last call; its growth is not told."""
        tokens, self._most_tokens = self._most_tokens, 0
        return {"cache": tokens * self._bytes_per_token, "growth": 0}


def _resident() -> int:
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    serve(GenAi)
