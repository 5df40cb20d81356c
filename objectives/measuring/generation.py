"""Text generation, timed in its two phases.

*Prefill* reads all prompts at once and is bound by compute; its time is the time to first token (TTFT).
*Decode* then yields one token per request and pass from a filled cache and is bound by memory bandwidth; its
time per pass is TPOT, which here excludes the first token. The two react to bits and batch size in opposite
ways, so they are never mixed. The number of new tokens is fixed: a candidate gains nothing by stopping early.
"""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Count
from objectives.types import Device, Head, Timing

if TYPE_CHECKING:
    import torch

    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Generation:
    """``batch_size`` requests of ``prompt_tokens`` each, continued greedily by ``new_tokens``."""

    batch_size: Count = 1
    prompt_tokens: Count = 128
    new_tokens: Count = 16

    @property
    def head(self) -> Head:
        """Drives decoders."""
        return "causal_lm"

    def run(self, model: LoadedModel, device: Device) -> Timing:
        """See ``objectives.types.Workload``; latency runs from the prompts to the last token."""
        import torch

        module = model.module
        ids = self._prompts(module.config.vocab_size).to(module.device)
        cache, stamps = None, []
        with torch.inference_mode():
            device.synchronize()
            stamps.append(perf_counter())
            for _ in range(self.new_tokens):
                output = module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, ids = output.past_key_values, output.logits[:, -1].argmax(dim=-1, keepdim=True)
                device.synchronize()
                stamps.append(perf_counter())
        steps = [later - earlier for earlier, later in pairwise(stamps)]
        return Timing(
            latency=(stamps[-1] - stamps[0],),
            items=self.batch_size * self.new_tokens,
            ttft=(steps[0],),
            tpot=tuple(steps[1:]),
        )

    def _prompts(self, vocabulary: int) -> torch.Tensor:
        """The same pseudo-random tokens for every candidate; content does not change the work."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, vocabulary, (self.batch_size, self.prompt_tokens), generator=generator)
