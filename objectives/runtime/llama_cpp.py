"""llama.cpp: the engine of most laptops and servers without a GPU.

Our codes are written into the blocks of a GGUF file as they are, so the accuracy is that of our rounding and the
kernels are llama.cpp's. Its blocks have a scale for every 32 inputs in any case; so the codes of 4 bits are rounded
with such groups and without zeros (Q4_0), which its fastest kernels take. They round a layer's inputs to 8 bits too.
It runs in a process of its own (:mod:`objectives.runtime.engines.llama_engine`).
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.assets import locate
from objectives.errors import ObjectiveError
from objectives.protocols.candidate import Runtime
from objectives.protocols.optional import BlockStored, RoundsItself, RoundsKeyValues
from objectives.protocols.serving import Capacity, HostsFolders, Server
from objectives.runtime.engines.engine import EngineRuntime
from objectives.runtime.engines.folder import Facts, Opener, write_facts
from objectives.runtime.packages import Packages
from objectives.settings import FORBID

if TYPE_CHECKING:
    from collections.abc import Collection

    from objectives.protocols.candidate import BuildContext, Candidate, Quantizer
    from objectives.protocols.running import Device
    from objectives.runtime.engines.folder import Engine
    from objectives.types import Head

MODEL = "model.gguf"
ASSET = "llama-cpp"
OWN = "PARETUNE_LIBLLAMA"
_BLOCK: Literal[32] = 32


@settings(frozen=True, kw_only=True, config=FORBID)
class LlamaCpp(EngineRuntime, Opener, RoundsItself, RoundsKeyValues, Runtime, HostsFolders):
    """Runs decoders of Llama type in llama.cpp.

    ``library``: which build of libllama; ``wheel``: that of xllamacpp, for AVX2; ``fetched``: that of ``paretune fetch
    llama-cpp``, for every CPU; ``own``: the file or folder that the environment variable PARETUNE_LIBLLAMA names. No
    setting holds a path: files of others would choose what runs here. ``repack``: keep weights in layouts made for this
    CPU, which is faster; without, the engine takes less memory. ``rounding``: our codes, or a format to which llama.cpp
    rounds a model of 16 bits by itself. ``importance``: it weighs errors by the moments of our calibration then.
    """

    library: Literal["wheel", "fetched", "own"] = "wheel"
    repack: bool = True
    rounding: Literal["ours", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_1", "q4_0", "iq4_nl"] = "ours"
    importance: bool = True

    @property
    @override
    def name(self) -> str:
        return "llama_cpp"

    @property
    @override
    def isolated(self) -> bool:
        return True

    @property
    @override
    def key_value_bits(self) -> Collection[int]:
        return (8, 4)  # its formats Q8_0 and Q4_0; a model of 32 bits has 32

    @property
    @override
    def packages(self) -> Packages:
        return Packages("llama_cpp", ("xllamacpp",) if self.library == "wheel" else (), ("gguf",))

    @override
    def requirements(self) -> str | None:
        try:
            self._place()
        except ObjectiveError as error:
            return f"runtimes.llama_cpp.library: {error}"
        return self.packages.missing()

    @override
    def versions(self) -> dict[str, str]:
        return {**self.packages.versions(), **({} if self.library == "wheel" else _hashes(self._place()))}

    def _place(self) -> str:
        """Return the path of the library, nothing for the wheel. Raises ObjectiveError where it is not there."""
        if self.library == "wheel":
            return ""
        if self.library == "fetched":
            return str(locate(ASSET))
        place = os.environ.get(OWN, "")
        if not place or not Path(place).exists():
            raise ObjectiveError(
                f"own needs the environment variable {OWN}, a file or folder of libllama; got {place!r}"
            )
        return place

    @property
    @override
    def own_rounding(self) -> str | None:
        return None if self.rounding == "ours" else f"runtime.rounding={self.rounding}"

    @override
    def storage(self, quantizer: Quantizer) -> Quantizer:
        if isinstance(quantizer, BlockStored):
            return quantizer.stored_in_blocks(_BLOCK)
        return super().storage(quantizer)

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        from objectives.runtime.engine_support import refused, rounds_activations
        from objectives.runtime.engines.llama_model import MOST_ROWS

        reason = refused(candidate, head, device, heads=["causal_lm"], bits=(32, 16, 8, 4))
        quantizer, rows = candidate.quantization, candidate.workload.batch_size
        if reason is None and rows > MOST_ROWS:
            return f"it runs at most {MOST_ROWS} texts at a time, got {rows}"
        if reason is None and self.rounding != "ours":
            if self.library == "wheel":
                return f"rounding={self.rounding} needs the whole library: runtimes.llama_cpp.library=fetched"
            if not quantizer.stored <= {16, 32} or quantizer.embeddings != 16:
                return f"rounding={self.rounding} rounds by itself: quantization.bits=16, quantization.embeddings=16"
            return None
        if reason is None and quantizer.stored & {8, 4} and not rounds_activations(quantizer):
            return "its kernels below 16 bits round activations as well: choose quantization.scheme=w8a8"
        if reason is None and 4 in quantizer.stored and getattr(quantizer, "scales_inputs", False):
            return "its files have no place for factors of inputs: choose quantization=gptq"
        return reason

    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.llama_formula import require_formula
        from objectives.runtime.engines.weights import Dense, matrices
        from objectives.runtime.formats import gguf_weights

        began, model = perf_counter(), context.model()
        require_formula(model, self._place())
        stored = gguf_weights.write(model, folder / MODEL)
        wide = any(isinstance(each, Dense) and each.bits == 32 for _, each in matrices(model))
        if self.rounding != "ours" and not wide:  # of 32 bits is the dense model that others are compared with
            stored = self._round(context, folder / MODEL)
        kept = gguf_weights.key_values(model, 32 if wide and context.kv_bits == 16 else context.kv_bits)
        others = (folder / MODEL).stat().st_size - sum(stored.values())
        write_facts(folder, engine_facts_of(self, model, began, stored, others, {**kept, "wide": wide}))

    def _round(self, context: BuildContext, file: Path) -> dict[str, int]:
        """Let llama.cpp round ``file``, and return the bytes of each matrix by its module's name."""
        from objectives.runtime.engines.llama_rounding import round_file
        from objectives.runtime.formats import gguf_weights

        powers = context.input_powers() if self.importance else {}
        names = gguf_weights.names_of(powers)
        importance = {names[module]: power.float().contiguous().numpy() for module, power in powers.items()}
        plain = file.with_suffix(".plain")
        file.rename(plain)
        try:
            round_file(self._place(), plain, file, self.rounding, importance, context.threads)
        finally:
            plain.unlink()
        return gguf_weights.sizes_of(context.model(), file)

    @override
    def unserved(self) -> str | None:
        if self.library == "wheel":
            return None
        return f"only the wheel's build has a server: runtimes.llama_cpp.library=wheel, got {self.library}"

    @override
    def host(self, folder: Path, facts: Facts, tokenizer: Any, threads: int, capacity: Capacity) -> Server:
        from objectives.runtime.servers import llama_server

        bits = facts.options["kv_bits"]
        return llama_server.start(folder / MODEL, tokenizer, facts.vocabulary, threads, capacity, bits, self.repack)

    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        from objectives.runtime.engines.llama_engine import LlamaDecoder

        return LlamaDecoder(folder / MODEL, self._place(), threads, facts.options["kv_bits"], self.repack)


@cache
def _hashes(place: str) -> dict[str, str]:
    """Return the SHA-256 of the libraries at ``place`` by name, those that libllama loads by itself included."""
    from objectives.content_hash import sha256

    path = Path(place)
    return {file.name: sha256(file) for file in (sorted(path.glob("*.so*")) if path.is_dir() else [path])}
