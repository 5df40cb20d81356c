"""Counts how long the texts of a task are, before torch is imported: a speed is that of texts of some length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from objectives.errors import ModelError

SHOWN = 2000
"""Texts that are counted at most: the mean of more is the same to a token."""


def mean_tokens(texts: Sequence[tuple[str, ...]], folder: Path, most: int) -> int:
    """Return how many tokens the mean text, or pair of texts, has, special tokens included; at least 1.

    ``folder``: the checkpoint's; ``most``: where longer ones are cut. A chat template is not counted. Raises ModelError
    for a folder without ``tokenizer.json``.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"workload: {folder} has no tokenizer.json, which counts tokens; give a number")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    chosen = texts[:: -(-len(texts) // SHOWN)]
    encoded = tokenizer.encode_batch([each if len(each) > 1 else each[0] for each in chosen])
    lengths = [min(len(each.ids), most) for each in encoded]
    return max(1, round(float(np.mean(lengths))))
