"""Trains the small models that ``paretune fetch`` makes: AdamW with a warm-up, on batches of rows of like length.

Everything random comes from a seed. The number of threads changes a result by rounding alone, and so does a CPU with
bfloat16, where matrix products are in bfloat16 and weights stay in float32.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from objectives.assets.asset import AssetError, Say

Features = Mapping[str, Any]
"""The inputs for one example by their names: lists of numbers, padded to the longest of a batch, and single numbers."""
Fill = Mapping[str, int]
"""The number that pads each list of a batch; 0 where none is named."""

_POOL = 50  # batches whose rows are sorted together: little padding, and still another order in each pass
_STEP = 4  # lengths are rounded up to multiples of it: for each new shape of a product torch prepares anew
_SHOWN_EVERY = 15.0  # seconds


@dataclass(frozen=True)
class Schedule:
    """The length and the pace of a training.

    ``passes``: over all rows. ``tokens``: of a step, padding included. ``rate``: AdamW's highest, reached after the
    share ``warm_up`` of the steps; from there it falls to 0 along a line. ``decay``: AdamW's weight decay.
    ``short_first``: the first pass goes from short rows to long ones, from which alone a model would not learn.
    """

    passes: int
    tokens: int
    rate: float
    warm_up: float = 0.1
    decay: float = 0.01
    short_first: bool = False
    seed: int = 0


def train_(model: Any, rows: Sequence[Features], schedule: Schedule, fill: Fill, say: Say) -> None:
    """Train ``model``, whose forward returns a loss, in place. Raises AssetError where the loss is not finite."""
    import torch

    plan = [batch for number in range(schedule.passes) for batch in shuffled(rows, schedule, number)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=schedule.rate, weight_decay=schedule.decay, fused=True)
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(len(plan), schedule.warm_up))
    progress = _Progress(len(plan), say)
    model.train()
    for batch in plan:
        with _products():
            loss = model(**padded([rows[place] for place in batch], fill)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        pace.step()
        progress.step(loss.item())
    model.eval()


def answers(model: Any, rows: Sequence[Features], tokens: int, fill: Fill) -> Iterator[tuple[int, Any]]:
    """Yield the number of each row and the model's output for the batch's row, longest rows first."""
    import torch

    order = sorted(range(len(rows)), key=lambda place: -_lengths(rows[place])[0])
    for batch in _cut(order, rows, tokens):
        with torch.inference_mode(), _products():
            output = model(**padded([rows[place] for place in batch], fill))
        for number, place in enumerate(batch):
            yield place, {name: value[number].float() for name, value in output.items() if value.ndim}


def shuffled(rows: Sequence[Features], schedule: Schedule, number: int) -> list[list[int]]:
    """Return the batches of pass ``number``: places of all rows, each once, those of a batch of like length."""
    draw = random.Random(f"{schedule.seed} {number}")
    order = list(range(len(rows)))
    draw.shuffle(order)
    mean = sum(sum(_lengths(row)) for row in rows) / len(rows)
    pool = max(1, round(_POOL * schedule.tokens / mean))
    batches = []
    for start in range(0, len(order), pool):
        batches += _cut(
            sorted(order[start : start + pool], key=lambda place: _lengths(rows[place])), rows, schedule.tokens
        )
    draw.shuffle(batches)
    if schedule.short_first and number == 0:
        batches.sort(
            key=lambda batch: sum(max(lengths) for lengths in zip(*(_lengths(rows[place]) for place in batch)))
        )
    return batches


def padded(rows: Sequence[Features], fill: Fill) -> dict[str, Any]:
    """Return the tensors of a batch: lists as [rows, longest], numbers as [rows], and the mask of ``input_ids``."""
    import torch

    batch: dict[str, Any] = {}
    for name, first in rows[0].items():
        if isinstance(first, list):
            longest = _rounded(max(len(row[name]) for row in rows))
            batch[name] = torch.tensor([row[name] + [fill.get(name, 0)] * (longest - len(row[name])) for row in rows])
        else:
            batch[name] = torch.tensor([row[name] for row in rows])
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    return batch


@contextmanager
def own_torch(seed: int, threads: int | None = None) -> Iterator[None]:
    """Use a seeded generator and so many threads (None: the caller's); restore the caller's state afterwards."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _products() -> Any:
    """Return the context in which matrix products are in bfloat16, where the CPU has instructions for it."""
    import torch

    flags = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(flags.get("avx512_bf16") or flags.get("amx_bf16")))


def _rate(steps: int, warm_up: float) -> Callable[[int], float]:
    first = max(1, round(warm_up * steps))
    return lambda step: min((step + 1) / first, (steps - step) / max(1, steps - first))


def _lengths(row: Features) -> tuple[int, int]:
    """Return how many tokens a row has, and how many of them are asked of the model where it writes."""
    labels = row.get("labels")
    return _rounded(len(row["input_ids"])), _rounded(len(labels)) if isinstance(labels, list) else 0


def _rounded(length: int) -> int:
    return -(-length // _STEP) * _STEP


def _cut(order: Sequence[int], rows: Sequence[Features], tokens: int) -> list[list[int]]:
    """Cut ``order`` into batches of at most ``tokens``, padding included; a longer row is a batch by itself."""
    batches: list[list[int]] = [[]]
    longest = (0, 0)
    for place in order:
        read, written = _lengths(rows[place])
        wider = (max(longest[0], read), max(longest[1], written))
        if batches[-1] and (len(batches[-1]) + 1) * sum(wider) > tokens:
            batches.append([])
            wider = (read, written)
        batches[-1].append(place)
        longest = wider
    return batches


class _Progress:
    """Tells now and then how far a training is, and how long the rest will take."""

    def __init__(self, steps: int, say: Say) -> None:
        self.steps, self.say = steps, say
        self.done, self.loss = 0, 0.0
        self.begun = self.told = time.monotonic()

    def step(self, loss: float) -> None:
        """Count a step, and tell. Raises AssetError where ``loss`` is not finite."""
        if not math.isfinite(loss):
            raise AssetError(f"the training diverged at step {self.done + 1} of {self.steps}: loss {loss}")
        self.done += 1
        self.loss += (loss - self.loss) * max(0.05, 1 / self.done)  # a moving mean of about 20 steps
        now = time.monotonic()
        if self.done == self.steps:
            self.say(f"trained in {now - self.begun:.0f} s: loss {self.loss:.3f} at the end")
        elif now - self.told > _SHOWN_EVERY:
            left = (now - self.begun) * (self.steps - self.done) / self.done
            self.say(f"step {self.done} of {self.steps}, loss {self.loss:.3f}, about {left:.0f} s left")
            self.told = now
