"""Inspects a checkpoint's files before one of its weights is read: config, tokenizer, headers of safetensors.

The driver inspects in ``run`` and ``plan``, the worker once more when it loads. Neither torch nor transformers is
imported: an inspection takes a fraction of a second, and a checkpoint that cannot be right is refused in one line that
says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from objectives.errors import ModelError
from objectives.models.inspection import limits
from objectives.models.inspection.config import Config, read_config, read_generation, refuse_numbers
from objectives.models.inspection.folders import (
    ASSET,
    cached_folder,
    local_folder,
    require_checkpoint,
    require_files,
    require_hub,
)
from objectives.models.inspection.kinds import head_of, refuse_head, refuse_quantised, refuse_unknown
from objectives.models.inspection.spans import Span
from objectives.models.inspection.vocabulary import refuse_vocabulary
from objectives.models.inspection.weights import read_headers, refuse_weights
from objectives.types import Head

__all__ = ["Inspection", "inspect", "inspect_folder", "made_for"]

_CLASSES = 2
"""Classes of a head whose config does not say how many there are, in transformers."""


@dataclass(frozen=True)
class Inspection:
    """A checkpoint that passed the inspection for ``head``, with the bounds that its config sets."""

    config: Config
    head: Head

    @property
    def positions(self) -> int | None:
        """Return how many tokens a text may have that the model reads; None where nothing limits them."""
        return limits.positions(self.config, "decoder" if self.head == "causal_lm" else "encoder")

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes of a classifier's head; none where the config does not say.

        A config that names none has those of transformers: LABEL_0, LABEL_1 and so on, two by default.
        """
        if self.head not in ("classifier", "token_classifier"):
            return ()
        number = self.config.raw.get("num_labels", _CLASSES)
        named = self.config.raw.get("id2label") or {str(place): f"LABEL_{place}" for place in range(number)}
        if not isinstance(named, dict) or not all(place.isdecimal() for place in named):
            return ()
        return tuple(str(named[place]) for place in sorted(named, key=int))

    @property
    def gives_several_classes(self) -> bool:
        """Return whether the head was trained to give a text any number of classes, and not one."""
        return self.config.raw.get("problem_type") == "multi_label_classification"

    def beyond(self, spans: Iterable[Span]) -> tuple[Span, int] | None:
        """Return the first of ``spans`` that exceeds the model's positions, with their number; None where all fit."""
        for span in spans:
            limit = limits.positions(self.config, span.side)
            if limit is not None and span.tokens > limit:
                return span, limit
        return None

    def least_bytes(self, batch_size: int, spans: Iterable[Span]) -> int:
        """Return the bytes that a run of such a batch takes at least, beside the weights, whatever the engine."""
        return limits.least_bytes(self.config, self.head, batch_size, tuple(spans))


def inspect(path: str, head: Head, revision: str | None = None) -> Inspection | None:
    """Inspect the checkpoint that ``model.path`` names; return None where it is built or downloaded only later.

    Raises ObjectiveError for a checkpoint that is missing, foreign, damaged, or not for ``head``.
    """
    folder = local_folder(path)
    if folder is not None:
        return inspect_folder(folder, head)
    if path.startswith(ASSET):
        return None
    folder = cached_folder(path, revision)
    if folder is None:
        require_hub(path)
        return None
    return inspect_folder(folder, head)


def made_for(path: str, revision: str | None = None) -> Head | None:
    """Return the head that the checkpoint of ``model.path`` was made for; None while its files are not here.

    Raises ObjectiveError for one that is missing, foreign, or of a type that transformers does not know.
    """
    folder = local_folder(path)
    if folder is None and path.startswith(ASSET):
        return None
    folder = folder or cached_folder(path, revision)
    if folder is None:
        require_hub(path)
        return None
    require_checkpoint(folder)
    config = read_config(folder)
    refuse_unknown(folder, config)
    return head_of(config)


def inspect_folder(folder: Path, head: Head) -> Inspection:
    """Inspect a folder with a whole checkpoint. Raises ObjectiveError where anything is wrong with it."""
    try:
        require_checkpoint(folder)
        config = read_config(folder)
        refuse_quantised(folder, config)
        refuse_unknown(folder, config)
        refuse_numbers(folder, config)
        refuse_head(config, head)
        require_files(folder)
        read_generation(folder)
        refuse_weights(folder, config, read_headers(folder))
        refuse_vocabulary(folder, config.number("vocab_size"))
    except OSError as error:
        raise ModelError(f"model.path: cannot read {folder}: {error.strerror or error}") from error
    return Inspection(config, head)
