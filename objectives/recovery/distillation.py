"""Distillation: a pruned model learns for a minute to answer as the dense one does on the calibration rows.

Every block linear gets a low-rank correction B A (LoRA), which is trained to bring the divergence from the dense model
down and is then added to the weight: nothing remains of it at run time.

Hinton et al., https://arxiv.org/abs/1503.02531; Hu et al., LoRA, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.models.batch import Batch, batch_of
from objectives.protocols.candidate import Recovery
from objectives.settings import FORBID, Count, NonNegative, Positive, Strength
from objectives.types import Note, NoteCode

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from objectives.calibration.moments import Domains
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Distillation(Recovery):
    """Train low-rank corrections of all block linears for ``seconds``; 0 leaves the model as it is.

    ``steps``: that many optimiser steps instead, whatever they take; the result is then the same every time.
    ``rank``: of a correction. ``rate``: the learning rate at its peak; it falls to zero towards the end. ``tokens``:
    tokens of one step; steps take rows of all domains in turn.
    """

    seconds: Annotated[NonNegative, Strength(neutral=0.0, harder=-1)] = 60.0
    steps: Count | None = None
    rank: Count = 16
    rate: Positive = 1e-3
    tokens: Count = 512

    @property
    @override
    def trains(self) -> bool:
        return bool(self.seconds or self.steps)

    @override
    def recover_(self, model: LoadedModel, statistics: Statistics) -> None:
        import torch

        if not self.trains or not (model.widths or model.layers):
            if self.trains and model.simulated:
                text = "recovery: a masked model is not trained, corrections would fill its zeros"
                model.notes.append(Note(NoteCode.OTHER, text))
            return
        home = model.module.device
        with torch.inference_mode(False), torch.enable_grad(), _in_fp32(model.module):
            model.module.to(statistics.running.module.device)  # trained where the dense model runs
            try:
                self._train_(model, statistics)
            finally:
                model.module.to(home)
        model.predicted_loss = math.nan  # the loss was predicted for the model before training

    def _train_(self, model: LoadedModel, statistics: Statistics) -> None:
        import torch
        from torch.nn.utils import clip_grad_norm_

        from objectives.calibration.divergence import answer, distance

        with ExitStack() as stack:
            corrections = [stack.enter_context(_corrected(linear, self.rank, i)) for i, linear in _linears(model)]
            parameters = [factor for pair in corrections for factor in pair]
            optimizer = torch.optim.Adam(parameters, lr=self.rate, betas=(0.9, 0.99))
            for progress, ids in zip(self._progress(), _batches(statistics.domains, self.tokens)):
                optimizer.param_groups[0]["lr"] = self.rate * min(1.0, 10 * progress + 0.1, 2 * (1 - progress))
                with torch.no_grad():
                    wanted = answer(statistics.running, ids)
                distance(model.head, wanted, answer(model, ids)).backward()  # type: ignore[no-untyped-call]
                clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad()
        for (_, linear), (down, up) in zip(_linears(model), corrections):
            linear.weight.data.addmm_(up.detach(), down.detach())

    def _progress(self) -> Iterator[float]:
        """Yield the share of the budget spent, once per step; ends when the next step would exceed the budget."""
        if self.steps is not None:
            yield from (step / self.steps for step in range(self.steps))
            return
        began, longest = time.monotonic(), 0.0
        spent = 0.0
        while spent + longest <= self.seconds:
            yield spent / self.seconds
            longest = max(longest, time.monotonic() - began - spent)
            spent = time.monotonic() - began


def _linears(model: LoadedModel) -> Iterator[tuple[int, nn.Linear]]:
    linears = (block.linear(path) for block in model.blocks() for path in block.stack.block_linears)
    return enumerate(linears)


@contextmanager
def _in_fp32(module: nn.Module) -> Iterator[None]:
    """Widen all parameters, which were rounded, and round them again afterwards."""
    stored = [(parameter, parameter.dtype) for parameter in module.parameters()]
    for parameter, _ in stored:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in stored:
            parameter.data = parameter.data.to(dtype)


@contextmanager
def _corrected(linear: nn.Linear, rank: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Let ``linear`` add B A x to its output; yields A [rank, in] and B [out, rank], B zero at first."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, linear.in_features, generator=generator).div_(math.sqrt(linear.in_features))
    down = down.to(linear.weight.device).requires_grad_()
    up = torch.zeros(linear.out_features, rank, device=linear.weight.device, requires_grad=True)

    def add(_module: object, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + (inputs[0] @ down.t()) @ up.t()

    handle = linear.register_forward_hook(add)
    try:
        yield down, up
    finally:
        handle.remove()


def _batches(domains: Domains, tokens: int) -> Iterator[Batch]:
    """Yield batches of about ``tokens`` tokens without end, domains in turn, shuffled again at every pass."""
    import torch

    generator = torch.Generator().manual_seed(0)
    streams = [_rows(batches, tokens, generator) for batches in domains.values() if batches]
    while True:
        for stream in streams:
            yield next(stream)


def _rows(batches: Sequence[Tensor | Batch], tokens: int, generator: torch.Generator) -> Iterator[Batch]:
    import torch

    while True:
        parts: list[Batch] = []
        for batch in map(batch_of, batches):  # rows of one batch have one length
            shuffled = batch[torch.randperm(len(batch), generator=generator)]
            size = max(1, tokens // batch.shape[1])
            parts += [shuffled[start : start + size] for start in range(0, len(batch), size)]
        yield from (parts[index] for index in torch.randperm(len(parts), generator=generator).tolist())
