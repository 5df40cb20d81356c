"""torch in eager mode, with packed linears of our own: the runtime of every baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Runtime
from objectives.protocols.optional import Arranging, RoundsKeyValues
from objectives.runtime.engine_support import embeds
from objectives.runtime.in_torch.base import InTorch
from objectives.settings import FORBID

if TYPE_CHECKING:
    from collections.abc import Collection

    from objectives.models.loaded_model import LoadedModel
    from objectives.protocols.candidate import Candidate, TorchBuildContext
    from objectives.protocols.running import Device, Runner
    from objectives.types import Head


@settings(frozen=True, kw_only=True, config=FORBID)
class Torch(InTorch, Arranging, RoundsKeyValues, Runtime):
    """Runs the packed model in eager mode.

    ``attention``: how transformers computes it, ``sdpa`` (fused) or ``eager`` (three products); ``prompt_lookup``: how
    many tokens at most are guessed from the text so far and checked in one pass, 0 for none; ``prefill_copy``: whether
    packed weights of blocks are held a second time, in 16 bits, for numbers of rows at which that is faster.
    """

    attention: Literal["sdpa", "eager"] = "sdpa"
    prompt_lookup: Literal[0, 3, 10] = 0
    prefill_copy: bool = False

    @property
    @override
    def name(self) -> str:
        return "torch"

    @property
    @override
    def key_value_bits(self) -> Collection[int]:
        return () if self.prompt_lookup else (8, 4)  # its guesses are taken out of the cache again

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        if self.prompt_lookup and head != "causal_lm":
            return "prompt_lookup is for decoders"
        if self.prompt_lookup and candidate.workload.batch_size != 1:
            return "prompt_lookup writes for one request at a time: workload.batch_size=1"
        return (self._copies(candidate, device) if self.prefill_copy else None) or embeds(candidate, device)

    @staticmethod
    def _copies(candidate: Candidate, device: Device) -> str | None:
        from objectives.packing.linear import can_copy

        if candidate.quantization.stored <= {16, 32}:
            return "prefill_copy is for weights in 8 or 4 bits: runtime.prefill_copy=false"
        if not device.runs_engines or not can_copy():
            return "prefill_copy is for CPUs that multiply 16 bits by themselves: runtime.prefill_copy=false"
        return None

    @override
    def arranged(self, model: LoadedModel) -> LoadedModel:
        if not self.prefill_copy:
            return model
        from objectives.packing.linear import copy_linears_

        shared = replace(model, module=model.sharing().module)
        copy_linears_(shared)
        return shared

    @override
    def prepare(self, context: TorchBuildContext) -> Runner:
        loaded = self.arranged(context.model())
        if self.attention != "sdpa":
            loaded = replace(loaded, module=loaded.sharing().module)
            loaded.module.set_attn_implementation(self.attention)
        if not self.prompt_lookup:
            from objectives.runtime.in_torch.runner import TorchRunner

            return TorchRunner(loaded, kv_bits=context.kv_bits)
        from objectives.runtime.in_torch.prompt_lookup import PromptLookupRunner

        return PromptLookupRunner.of(loaded, self.prompt_lookup, context.calibration)
