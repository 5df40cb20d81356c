"""Makes what encoders read of texts and pairs of texts, and runs them by length. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from objectives.tasks.batching import alike, by_length, padded
from objectives.tasks.partial_scores import Reader, require_rows

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.models.batch import Batch
    from objectives.protocols.running import Runner


@dataclass(frozen=True)
class Encoded:
    """A text, or a pair of texts, as token ids; ``types``: to which text of a pair each belongs, for models that ask.

    ``spans``: the first and last character of each token, where they were asked for; ``whole``: how many tokens there
    would be without a cut.
    """

    ids: Sequence[int]
    types: Sequence[int] | None
    whole: int
    spans: Sequence[tuple[int, int]] = ()

    @property
    def is_cut(self) -> bool:
        """Return whether tokens were left out."""
        return self.whole > len(self.ids)


def encode(model: Reader, texts: Sequence[str], others: Sequence[str] | None, most: int) -> list[Encoded]:
    """Return each text, or with ``others`` each pair, in at most ``most`` tokens: the longer text is cut at its end.

    Raises Unsupported for a token that the model has no row for.
    """
    tokenizer = model.tokenizer
    pairs = (list(texts),) if others is None else (list(texts), list(others))
    read = tokenizer(*pairs, truncation="longest_first", max_length=most, verbose=False)
    whole = tokenizer(*pairs, verbose=False)["input_ids"]
    require_rows(model, max((max(row) for row in read["input_ids"] if row), default=0))
    types = read.get("token_type_ids") or [None] * len(texts)
    return [Encoded(ids, kinds, len(full)) for ids, kinds, full in zip(read["input_ids"], types, whole)]


def cut_remark(rows: Sequence[Encoded], where: str) -> tuple[str, ...]:
    """Return a line that says how many rows are cut; none where no row is."""
    cut = [row for row in rows if row.is_cut]
    return (f"task.tokens: {len(cut)} of {len(rows)} rows are cut {where} to {len(cut[0].ids)} tokens",) if cut else ()


def calibration_batches(rows: Sequence[Encoded], size: int, scored: Sequence[Sequence[bool]] = ()) -> list[Batch]:
    """Return the rows in batches of equal length, shuffled always in the same way.

    ``scored``: for each row, which of its tokens have an answer that the task reads.
    """
    import torch

    from objectives.models.batch import Batch

    found = []
    for chosen in alike([(len(row.ids),) for row in rows], size):
        types = [row.types for row in (rows[place] for place in chosen) if row.types is not None]
        marks = torch.tensor([scored[place] for place in chosen]) if scored else None
        ids = torch.tensor([rows[place].ids for place in chosen])
        found.append(Batch(ids, torch.tensor(types) if types else None, scored=marks))
    return found


def answers(model: Runner, rows: Sequence[Encoded], size: int) -> list[Tensor]:
    """Return what ``model.encode`` answers to each row, fp32 on the CPU; ``size`` rows of like length run at a time.

    The answers of a head that has one for every token are cut to the row's own tokens.
    """
    import torch

    found = [torch.empty(0)] * len(rows)
    filling = model.tokenizer.pad_token_id or 0
    with torch.inference_mode():
        for batch in by_length([len(row.ids) for row in rows], size):
            ids, mask = padded([rows[place].ids for place in batch], filling)
            typed = _types([rows[place] for place in batch])
            types = None if typed is None else typed.to(model.device)
            answer = model.encode(ids.to(model.device), mask.to(model.device), types).float().cpu()
            for place, one in zip(batch, answer):
                found[place] = one if model.head == "classifier" else one[: len(rows[place].ids)]
    return found


def _types(rows: Sequence[Encoded]) -> Tensor | None:
    types = [row.types for row in rows if row.types is not None]
    return padded(types, 0)[0] if types else None
