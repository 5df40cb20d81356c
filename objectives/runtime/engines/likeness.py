"""Checks that an engine computes the model that it was made of: a converter may know another formula.

Torch's answer to a few tokens is kept beside the engine's files, and the engine is asked the same whenever it is opened
for a study. Rounding of activations moves an answer by some per cent; a wrong formula moves it by as much as its norm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from objectives.errors import Unsupported
from objectives.types import ENCODERS

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.protocols.running import Runner

EXPECTED = ".expected.npz"
TOKENS = 16
"""Length of the text: what the smallest file of LiteRT holds."""
FAR = 0.5
"""Relative error of an answer from which on it is another answer."""


def write_expected(folder: Path, model: Runner) -> None:
    """Write the answer of ``model`` to a few tokens into the folder of its engine."""
    ids = spread(model.vocabulary)
    np.savez(folder / EXPECTED, ids=ids.numpy(), answer=_answer(model, ids).float().cpu().numpy())


def spread(vocabulary: int) -> Tensor:
    """Return the tokens [1, tokens] that are asked, from all over the vocabulary.

    Not the first ones: those are often special tokens that no training saw, to which a model answers chaotically.
    """
    return (vocabulary // 8 + torch.arange(TOKENS) * max(1, vocabulary // (TOKENS + 4))).view(1, TOKENS) % vocabulary


def require_alike(runner: Runner, folder: Path, name: str) -> None:
    """Raise Unsupported where the engine of ``folder`` answers something else; ``name``: the runtime's, for people."""
    with np.load(folder / EXPECTED) as kept:
        ids, wanted = torch.from_numpy(kept["ids"]), torch.from_numpy(kept["answer"])
    if not bool(wanted.isfinite().all()):  # a fault of the model, which scoring names
        return
    off = float((_answer(runner, ids).float() - wanted).norm() / wanted.norm().clamp_min(1e-30))
    if not off < FAR:
        raise Unsupported(f"{name} reads this model otherwise than torch: its answer is {off:.0%} off")


def _answer(runner: Runner, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return runner.encode(ids.to(runner.device)) if runner.head in ENCODERS else runner.logits(ids.to(runner.device))
