"""Reading one text and writing another - translation, summarisation - timed in its three phases.

The *encoder* reads all sources at once and is bound by compute. The *first pass of the decoder* (prefill) computes keys
and values of the sources for every cross-attention and yields the first token: time to first token (TTFT) is the two
together. *Decode* then yields one token per request and pass from two caches, of which only the decoder's own grows,
and is bound by memory bandwidth; TPOT is its time per pass. The number of new tokens is fixed, as in
:mod:`objectives.workloads.generation`.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.models.inspection.spans import Span
from objectives.protocols.encoder_decoder import ReadsSources
from objectives.protocols.optional import Bounded
from objectives.protocols.running import PhaseObserver, Runner, Workload
from objectives.settings import FORBID, Count
from objectives.types import Head, Phase


@settings(frozen=True, kw_only=True, config=FORBID)
class Translation(Workload, Bounded):
    """Reads ``batch_size`` sources of ``source_tokens`` each and writes ``new_tokens`` to each of them greedily.

    ``decoder_tokens``: how many tokens the decoder starts with: the start token, or a prefix of so many.
    """

    batch_size: Count = 1
    source_tokens: Count = 128
    new_tokens: Count = 16
    decoder_tokens: Count = 1

    @property
    @override
    def head(self) -> Head:
        return "seq2seq"

    @property
    @override
    def items(self) -> int:
        """Return the output tokens of one run."""
        return self.batch_size * self.new_tokens

    @property
    @override
    def tokens_read(self) -> int:
        """Return the source tokens of one run."""
        return self.batch_size * self.source_tokens

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        """Return two spans: the source, and what the decoder begins with and writes."""
        return (
            Span(("source_tokens",), (self.source_tokens,), "encoder"),
            Span(("decoder_tokens", "new_tokens"), (self.decoder_tokens, self.new_tokens)),
        )

    @override
    def representative_runs(self) -> dict[Phase, Translation]:
        """Return a run for each phase; that of the decode is its last step, made by a longer prefix."""
        first = replace(self, new_tokens=1)
        runs: dict[Phase, Translation] = {"encode": first, "prefill": first}
        if self.new_tokens > 1:
            runs["decode"] = replace(self, decoder_tokens=self.decoder_tokens + self.new_tokens - 2, new_tokens=2)
        return runs

    @override
    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """Run one batch; latency runs from the sources to the last token."""
        import torch

        from objectives.workloads.prompts import prompts

        assert isinstance(model, ReadsSources)  # all runners of encoder-decoders do
        with torch.inference_mode():
            sources = prompts(model, self.batch_size, self.source_tokens)
            prefix = ids = sources.new_full((self.batch_size, self.decoder_tokens), model.opening.tokens[0])
            watch.start(laps=1 + self.new_tokens)
            states, cache = model.read(sources), None
            watch.end_phase("encode")
            for step in range(self.new_tokens):
                logits, cache = model.step(ids, cache) if step else model.begin(states, prefix)
                ids = logits.argmax(dim=-1, keepdim=True)
                watch.end_phase("decode" if step else "prefill", cache)
            del sources, prefix  # kept so far: they were there before the run
