"""torch in eager mode, with packed linears of our own: the runtime of every baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.runtime.engine_support import embeds
from objectives.runtime.in_torch.base import InTorch
from objectives.settings import FORBID

if TYPE_CHECKING:
    from objectives.protocols.candidate import Candidate, TorchBuildContext
    from objectives.protocols.running import Device, Runner
    from objectives.types import Head


@settings(frozen=True, kw_only=True, config=FORBID)
class Torch(InTorch):
    """``attention``: how transformers computes it, ``sdpa`` (fused) or ``eager`` (three products).

    ``prompt_lookup``: so many tokens at most are guessed from the text so far and checked in one pass; 0 for none.
    """

    attention: Literal["sdpa", "eager"] = "sdpa"
    prompt_lookup: Literal[0, 3, 10] = 0

    @property
    def name(self) -> str:
        """See ``Runtime``."""
        return "torch"

    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        """See ``Runtime``; whatever the device stores."""
        if self.prompt_lookup and head != "causal_lm":
            return "prompt_lookup is for decoders"
        if self.prompt_lookup and candidate.workload.batch_size != 1:
            return "prompt_lookup writes for one request at a time: workload.batch_size=1"
        return embeds(candidate, device)

    def prepare(self, materials: TorchBuildContext) -> Runner:
        """See ``Runtime``."""
        loaded = materials.model()
        if self.attention != "sdpa":
            loaded = replace(loaded, module=loaded.sharing().module)
            loaded.module.set_attn_implementation(self.attention)
        if not self.prompt_lookup:
            from objectives.runtime.in_torch.runner import TorchRunner

            return TorchRunner(loaded)
        from objectives.runtime.in_torch.prompt_lookup import PromptLookupRunner

        return PromptLookupRunner.of(loaded, self.prompt_lookup, materials.calibration)
