"""Makes what encoders read of texts and pairs of texts, and runs them by length. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectives.tasks.batching import alike, by_length, padded
from objectives.tasks.partial_scores import Reader, require_rows
from objectives.tasks.prompting import cut_remarks

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.models.batch import Batch
    from objectives.protocols.running import Runner


@dataclass(frozen=True)
class Encoded:
    """A text, or a pair of texts, as token ids; ``types``: to which text of a pair each belongs, for models that ask.

    ``spans``: the first and last character of each token, where they were asked for; ``words``: the place of the word
    that each token is of, None for special tokens, where words were given; ``whole``: how many tokens there would be
    without a cut.
    """

    ids: Sequence[int]
    types: Sequence[int] | None
    whole: int
    spans: Sequence[tuple[int, int]] = ()
    words: Sequence[int | None] = ()

    @property
    def is_cut(self) -> bool:
        """Return whether tokens were left out."""
        return self.whole > len(self.ids)


def encode(model: Reader, texts: Sequence[str], others: Sequence[str] | None, most: int) -> list[Encoded]:
    """Return each text, or with ``others`` each pair, in at most ``most`` tokens: the longer text is cut at its end.

    Raises Unsupported for a token that the model has no row for.
    """
    return _encode(model, (texts,) if others is None else (texts, others), most)


def encode_words(model: Reader, rows: Sequence[Sequence[str]], most: int) -> list[Encoded]:
    """Return each list of words in at most ``most`` tokens, cut at its end, with the word that each token is of.

    Raises Unsupported for a token that the model has no row for.
    """
    return _encode(model, (rows,), most, is_split_into_words=True)


def _encode(model: Reader, columns: Sequence[Sequence[Any]], most: int, **how: bool) -> list[Encoded]:
    """Encode all rows at once without a cut, and only those that are too long once more."""
    whole = model.tokenizer(*map(list, columns), verbose=False, **how)
    lengths = list(map(len, whole["input_ids"]))
    found = [_row(whole, place, length, how) for place, length in enumerate(lengths)]
    long = [place for place, length in enumerate(lengths) if length > most]
    if long:
        given = [[column[place] for place in long] for column in columns]
        cut = model.tokenizer(*given, truncation="longest_first", max_length=most, verbose=False, **how)
        for at, place in enumerate(long):
            found[place] = _row(cut, at, lengths[place], how)
    require_rows(model, max((max(row.ids) for row in found if row.ids), default=0))
    return found


def _row(read: Any, place: int, whole: int, how: Mapping[str, bool]) -> Encoded:
    types = read.get("token_type_ids")
    words = read.word_ids(place) if how.get("is_split_into_words") else ()
    return Encoded(read["input_ids"][place], types and types[place], whole, words=words)


def rows_cut(rows: Sequence[Encoded]) -> tuple[str, ...]:
    """Return a line that says how many rows are cut; none where no row is."""
    most = max((len(row.ids) for row in rows if row.is_cut), default=0)
    lengths = [row.whole if row.is_cut else 0 for row in rows]
    return cut_remarks("task.tokens", lengths, most, "rows are cut at their end") if most else ()


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
