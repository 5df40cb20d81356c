"""Text generation, timed in its two phases.

*Prefill* reads all prompts at once and is bound by compute; its time is the time to first token (TTFT).
*Decode* then yields one token per request and pass from a filled cache and is bound by memory bandwidth; its
time per pass is TPOT, which here excludes the first token. The two react to bits and batch size in opposite
ways, so they are never mixed. The number of new tokens is fixed: a candidate gains nothing by stopping early.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded
from objectives.protocols.running import PhaseObserver, Workload
from objectives.settings import FORBID, Count
from objectives.types import Head, Phase

if TYPE_CHECKING:
    from objectives.protocols.running import Runner


@settings(frozen=True, kw_only=True, config=FORBID)
class Generation(Workload, Bounded):
    """Continues ``batch_size`` requests of ``prompt_tokens`` each greedily by ``new_tokens``."""

    batch_size: Count = 1
    prompt_tokens: Count = 128
    new_tokens: Count = 16

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def items(self) -> int:
        """Return the output tokens of one run."""
        return self.batch_size * self.new_tokens

    @property
    @override
    def tokens_read(self) -> int:
        return self.batch_size * self.prompt_tokens

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        """Return one span: a prompt and what is written after it."""
        return (Span(("prompt_tokens", "new_tokens"), (self.prompt_tokens, self.new_tokens)),)

    @override
    def representative_runs(self) -> dict[Phase, Generation]:
        """Return a run for each phase; that of the decode is its last step, which has the longest cache."""
        runs: dict[Phase, Generation] = {"prefill": replace(self, new_tokens=1)}
        if self.new_tokens > 1:
            runs["decode"] = replace(self, prompt_tokens=self.prompt_tokens + self.new_tokens - 2, new_tokens=2)
        return runs

    @override
    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """Run one batch; latency runs from the prompts to the last token."""
        import torch

        from objectives.workloads.prompts import prompts

        with torch.inference_mode():
            ids = prompts(model, self.batch_size, self.prompt_tokens)
            out = ids.new_empty(self.batch_size, self.new_tokens)
            watch.start(laps=self.new_tokens)
            model.generate(ids, out, end_phase=watch.end_phase)
