"""CTranslate2: a C++ engine of its own, for decoders as their architecture defines them.

It reads a checkpoint of transformers, so every layer has the width that the config gives: unpruned models only. In 8
bits it stores everything, the embedding too, and rounds activations per token. It generates by itself and keeps its
cache to itself; pass by pass it can only be asked for logits of whole texts, which is what scoring does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Runtime
from objectives.runtime.engines.engine import EngineRuntime
from objectives.runtime.engines.folder import DecoderEngine, Facts, Generating, Opener, Selecting, write_facts
from objectives.runtime.packages import Packages
from objectives.settings import FORBID, asks_to_prune

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from objectives.models import LoadedModel
    from objectives.protocols.candidate import BuildContext, Candidate
    from objectives.protocols.running import Device, EndPhase
    from objectives.runtime.engines.folder import Engine, Floats, Ids
    from objectives.types import Head


@settings(frozen=True, kw_only=True, config=FORBID)
class CTranslate2(EngineRuntime, Opener, Runtime):
    """Runs decoders in CTranslate2. It has no settings: 8 bits are int8 with fp32 between, 32 bits fp32."""

    @property
    @override
    def name(self) -> str:
        return "ctranslate2"

    @property
    @override
    def packages(self) -> Packages:
        return Packages("ctranslate2", ("ctranslate2",))

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        from objectives.runtime.engine_support import refused, rounds_activations

        reason = refused(candidate, head, device, heads=["causal_lm"], bits=(32, 8))
        quantizer = candidate.quantization
        if reason is None and asks_to_prune(candidate.pruning):
            return "takes unpruned models only: its files give all layers one width"
        if reason is None and 8 in quantizer.stored:
            if not rounds_activations(quantizer):
                return "its 8-bit kernels round activations as well: choose quantization.scheme=w8a8"
            if quantizer.embeddings != 8:
                return "stores the embedding in 8 bits too: choose quantization.embeddings=8"
        return reason

    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.weights import Rounded, matrices, sizes

        began, model = perf_counter(), context.model()
        rounded = any(isinstance(weight, Rounded) for _, weight in matrices(model))
        convert(model, folder, "int8" if rounded else None)
        stored = sizes(model, least_bits=32)
        others = max(0, (folder / "model.bin").stat().st_size - sum(stored.values()))
        write_facts(folder, engine_facts_of(self, model, began, stored, others, {}))

    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        import ctranslate2

        generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type="default", inter_threads=1, intra_threads=threads
        )
        return _Decoder(generator, json.loads((folder / "vocabulary.json").read_text(encoding="utf-8")))


def convert(model: LoadedModel, folder: Path, quantization: str | None) -> None:
    """Write ``model`` into ``folder`` as the engine reads it.

    Raises Unsupported for an unknown architecture, and for one that the engine reads otherwise than transformers does.
    """
    from ctranslate2.converters import TransformersConverter

    from objectives.errors import Unsupported, said
    from objectives.runtime.engines.graph_export import fp32_copy
    from objectives.runtime.engines.silence import silence

    with TemporaryDirectory() as scratch, silence():
        module: Any = fp32_copy(model)
        module.save_pretrained(scratch)
        model.tokenizer.save_pretrained(scratch)
        try:
            TransformersConverter(scratch).convert(str(folder), quantization=quantization, force=True)
        except Exception as error:  # whatever an unknown architecture runs into
            raise Unsupported(f"CTranslate2 cannot convert this model: {said(error)}") from error
    file = folder / "config.json"  # its reader insists on every special token, a tokenizer may lack some
    tokens = json.loads(file.read_text(encoding="utf-8"))
    some = model.tokenizer.eos_token or model.tokenizer.convert_ids_to_tokens(0)
    lacking = {name: some for name, value in tokens.items() if value is None and name.endswith("_token")}
    file.write_text(json.dumps({**tokens, **lacking}), encoding="utf-8")
    off = _error(module, folder, model.vocabulary)
    if not off < (_EXACT if quantization is None else _ROUNDED):
        raise Unsupported(f"CTranslate2 reads this model otherwise than transformers: its answer is {off:.0%} off")


_EXACT, _ROUNDED = 0.01, 0.5
"""Relative error of the logits that files in fp32 and in 8 bits may have: more is a wrong formula, not rounding."""


def _error(module: Any, folder: Path, vocabulary: int) -> float:
    """Return how far the engine's logits are from those of ``module``, relative to their norm, on a few tokens."""
    import ctranslate2
    import numpy as np
    import torch

    ids = [token % vocabulary for token in range(2, 14)]
    try:
        logits = np.asarray(ctranslate2.Generator(str(folder), device="cpu", intra_threads=1).forward_batch([ids]))
    except RuntimeError:
        return math.inf
    with torch.inference_mode():
        expected = module(input_ids=torch.tensor([ids])).logits.numpy()
    return float(np.linalg.norm(logits - expected) / np.linalg.norm(expected))


class _Decoder(DecoderEngine, Generating, Selecting):
    """A decoder whose cache is the text so far, which is read again at every pass."""

    def __init__(self, generator: Any, vocabulary: list[str]) -> None:
        self._generator, self._vocabulary = generator, vocabulary

    @override
    def start(self, rows: int) -> list[list[int]]:
        return [[] for _ in range(rows)]

    @override
    def select(self, cache: list[list[int]], rows: Sequence[int]) -> list[list[int]]:
        return [cache[row] for row in rows]

    @override
    def run(
        self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: list[list[int]]
    ) -> tuple[Floats, list[list[int]]]:
        """Return the logits and the texts so far; what comes before place 0 is padding, and is dropped."""
        import numpy as np

        texts = [(seen + row)[-(int(last) + 1) :] for seen, row, last in zip(cache, ids.tolist(), places[:, -1])]
        every = np.asarray(self._generator.forward_batch(texts))
        ends = np.array([len(text) for text in texts])[:, None]
        at = np.maximum(ends - ids.shape[1] + wanted[None, :], 0)
        logits: Floats = np.take_along_axis(every, at[:, :, None], axis=1)
        return logits, texts

    @override
    def generate(self, ids: Ids, out: Ids, mask: NDArray[np.bool_] | None, end_phase: EndPhase | None) -> None:
        rows, count = out.shape
        seen = [row if mask is None else row[mask[index]] for index, row in enumerate(ids)]
        texts = [[self._vocabulary[token] for token in row.tolist()] for row in seen]
        done = 0

        def count_token(result: Any) -> bool:
            nonlocal done
            done += 1
            if end_phase is not None and done % rows == 0:
                end_phase("prefill" if done == rows else "decode", None)
            return False

        results = self._generator.generate_batch(
            texts, max_length=count, end_token=[], include_prompt_in_result=False, callback=count_token
        )
        for index, result in enumerate(results):
            out[index] = result.sequences_ids[0]
