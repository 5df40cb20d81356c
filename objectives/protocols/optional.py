"""Abilities that a part of a study may have. An object that lacks one is taken as it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from objectives.models.inspection import Inspection
    from objectives.models.inspection.spans import Span
    from objectives.models.loaded_model import LoadedModel
    from objectives.protocols.candidate import Quantizer


@runtime_checkable
class Bounded(Protocol):
    """A workload or task that says how long the sequences are that it reads and writes.

    One that does not is taken as it is: a sequence that a model cannot hold shows when it runs.
    """

    @property
    def spans(self) -> Sequence[Span]:
        """Return one span for every kind of sequence; its ``settings`` are names of this object's own fields."""


@runtime_checkable
class Supplied(Protocol):
    """A task that can tell, without a model, whether its corpus holds what it asks for.

    One that cannot is taken as it is: what is missing shows when its rows are made.
    """

    def require_documents(self) -> None:
        """Raise ModelError where the corpus has too few documents, however long they are."""


@runtime_checkable
class Remarking(Protocol):
    """A task that has something to say before a study begins, such as how it divided the rows of a file."""

    def remarks(self) -> Sequence[str]:
        """Return lines for a person, without a model."""


@runtime_checkable
class Labelled(Protocol):
    """A task whose rows name classes of a model. For any other, scoring says what does not fit."""

    def require_labels(self, classes: Sequence[str]) -> None:
        """Raise DataError for a row with a label that is none of ``classes``, the model's own in its order."""


@runtime_checkable
class Readable(Protocol):
    """A task that can tell the texts that a model reads, so that a workload can have their length."""

    def texts(self) -> Sequence[tuple[str, ...]]:
        """Return the text, or the pair of texts, of every scored row, without a model."""

    @property
    def longest(self) -> int:
        """Return how many tokens of a text are read at most, where the model has more room."""
        return 512


@runtime_checkable
class Packaged(Protocol):
    """A task whose scores depend on packages beside torch and transformers: another version may score otherwise.

    Kept scores of one that does not say so are served whatever is installed.
    """

    @property
    def packages(self) -> Sequence[str]:
        """Return the names under which they are installed; one may be missing."""


@runtime_checkable
class Banded(Protocol):
    """A task that asks more of a candidate than an accuracy: metrics of all its examples that stay within a range."""

    @property
    def bands(self) -> Mapping[str, tuple[float, float]]:
        """Return the least and the largest value allowed, by the name of the metric in ``Score.extra``."""


@runtime_checkable
class Inspectable(Protocol):
    """A model whose files can be inspected before torch is imported. For any other, loading says what is wrong."""

    def inspect(self) -> Inspection | None:
        """Return what its files say; None while nothing is here yet. Raises ObjectiveError for what cannot be right."""

    def unprunable(self) -> str | None:
        """Return, in a line, why no pruner works on it; None where one may, or where nobody knows yet."""


@runtime_checkable
class Detectable(Protocol):
    """A device that can be looked for before torch is imported. For any other, starting it says what is wrong."""

    def absent(self) -> str | None:
        """Return, in a line that names the setting, why it is not here; None where it is."""

    def total_memory(self) -> int | None:
        """Return the bytes that a run can never exceed; None where that is not known."""


@runtime_checkable
class Plural(Protocol):
    """A device of which a machine may have several, so that a study can use them all."""

    def each(self) -> Sequence[Mapping[str, str]]:
        """Return, for every one, the environment in which a process sees it alone. Raises Unsupported."""


@runtime_checkable
class Threaded(Protocol):
    """A device whose work is done by threads of this process. For any other, CPU time says nothing about speed."""

    @property
    def threads(self) -> int | None:
        """Return the number of threads; None for all that the process may use."""


@runtime_checkable
class Shaping(Protocol):
    """A pruner that can tell whether blocks may differ in their widths. For any other, making the model says it."""

    @property
    def shapes_alike(self) -> bool:
        """Return whether all blocks that it leaves have equal widths, with its present settings."""


@runtime_checkable
class Unkept(Protocol):
    """A runtime whose results are not kept in the cache: what it runs may be something else next time."""

    def unkept(self) -> str:
        """Return why, in words."""


@runtime_checkable
class Filed(Protocol):
    """An object whose results depend on a file that one of its settings names."""

    def file(self) -> Path | None:
        """Return the file; None where no setting names one."""

    def file_hash(self) -> str | None:
        """Return the SHA-256 of the file; None where no setting names one. Raises DataError."""


@runtime_checkable
class Masking(Protocol):
    """A pruner that only sets weights to zero: all shapes stay, and a dense kernel multiplies the zeros."""

    @property
    def masks_weights(self) -> bool:
        """Return whether it does, with its present settings."""


@runtime_checkable
class Portable(Protocol):
    """A quantiser that can suit its codes to other runtimes than torch. Of any other they get the codes as they are."""

    def portable(self) -> Quantizer:
        """Return the nearest quantiser with whole zero points whose 8 bits leave the activations alone.

        Whether activations are rounded is then the engine's business, which asks the original quantiser.
        """


@runtime_checkable
class BlockStored(Protocol):
    """A quantiser that can suit its codes to files with a scale for every few inputs and no zeros, such as GGUF's."""

    def stored_in_blocks(self, size: Literal[32, 64, 128]) -> Quantizer:
        """Return the nearest quantiser with such codes whose 8 bits leave the activations alone."""


@runtime_checkable
class Arranging(Protocol):
    """A runtime that holds the weights of the packed model in a way of its own. Any other runs it as it is."""

    def arranged(self, model: LoadedModel) -> LoadedModel:
        """Return the model as it runs it, with its present settings; ``model`` itself stays as it is.

        Its tensors may be fake: then only sizes matter.
        """


@runtime_checkable
class RoundsItself(Protocol):
    """A runtime that may round the weights by its own rules. Any other runs the codes that it is given."""

    @property
    def own_rounding(self) -> str | None:
        """Return the setting that asks for that, as a person writes it; None where the codes stay."""


@runtime_checkable
class RoundsKeyValues(Protocol):
    """A runtime that can keep a decoder's keys and values in fewer bits than 16. Any other keeps them as it does."""

    @property
    def key_value_bits(self) -> Collection[int]:
        """Return the widths below 16 that it has, with its present settings."""
