"""Prompt lookup: what follows is often in the text already - a name, a quotation, a line of code.

The last tokens are searched for further up; what followed them there is taken for a guess, and one pass checks all of
it: the longest beginning that greedy decoding would have written is kept. So what is written is what greedy decoding
writes, up to rounding: logits of several positions at once differ in the last bits from those of one (bf16), and so may
a near tie.

Saxena, Prompt Lookup Decoding, https://github.com/apoorvumang/prompt-lookup-decoding; Yang et al., Inference with
Reference, https://arxiv.org/abs/2304.04487.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from objectives.models.batch import batch_of
from objectives.protocols.running import EndPhase
from objectives.runtime.in_torch.runner import TorchRunner

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models.loaded_model import LoadedModel

LONGEST = 3
"""Tokens of the longest ending that is searched for, before shorter ones."""


def guess(text: list[int], most: int) -> list[int]:
    """Return what followed the latest earlier occurrence of the last tokens of ``text``, at most ``most`` tokens."""
    for length in range(min(LONGEST, len(text) - 1), 0, -1):
        ending = text[-length:]
        for start in range(len(text) - length - 1, -1, -1):
            if text[start : start + length] == ending:
                return text[start + length : start + length + most]
    return []


@dataclass(eq=False)
class PromptLookupRunner(TorchRunner):
    """Checks guesses of up to ``most`` tokens.

    ``text``: ids that it is timed on, [tokens]; ``place``: the index of the next one.
    """

    most: int
    text: Tensor
    place: int = 0

    @classmethod
    def of(cls, model: LoadedModel, most: int, calibration: Domains) -> PromptLookupRunner:
        """Make the runner of ``model`` that is timed on the rows of ``calibration``."""
        rows = [row for batches in calibration.values() for batch in batches for row in batch_of(batch).ids]
        return cls(model, most, torch.cat(rows))

    def prompts(self, rows: int, tokens: int) -> Tensor:
        """Return the next ids of the text, [rows, tokens]: see ``objectives.workloads.prompts.Particular``."""
        at = (self.place + torch.arange(rows * tokens)) % len(self.text)
        self.place = int(at[-1]) + 1
        return self.text[at].view(rows, tokens)

    @override
    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        """Fill ``out`` greedily; several rows, and padded ones, are written without guesses."""
        if len(ids) != 1 or mask is not None:
            super().generate(ids, out, mask, end_phase)
            return
        text, count = ids[0].tolist(), out.shape[1]
        output = self.module(input_ids=ids, use_cache=True, logits_to_keep=1)
        cache, written = output.past_key_values, [int(output.logits[0, -1].argmax())]
        if end_phase is not None:
            end_phase("prefill", cache)
        while len(written) < count:
            guessed = guess([*text, *written], min(self.most, count - len(written) - 1))
            read = torch.tensor([[written[-1], *guessed]], device=ids.device)
            output = self.module(input_ids=read, past_key_values=cache, use_cache=True)
            best = output.logits[0].argmax(dim=-1).tolist()
            right = next((place for place, token in enumerate(guessed) if token != best[place]), len(guessed))
            written += best[: right + 1]
            cache = output.past_key_values
            if right < len(guessed):
                cache.crop(len(text) + len(written) - 1)
            if end_phase is not None:
                end_phase("decode", cache)
        out[0] = torch.tensor(written[:count])
