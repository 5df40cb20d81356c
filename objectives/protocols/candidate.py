"""A candidate and its parts: how a model is pruned, recovered, quantised, and by which engine it runs.

A class that names one of these protocols as its base must write every abstract member: without one, it cannot be
constructed, and the error names what is missing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from objectives.protocols.key_values import KeyValueBits
from objectives.protocols.running import Device, Runner, Workload
from objectives.types import Head, Scheme

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from objectives.calibration.moments import Domains
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


class Pruner(Protocol):
    """Removes structure from a model. Immutable; the same settings give the same model.

    Settings that say how much goes declare a :class:`objectives.settings.Strength`, from which the baseline is known.
    """

    @abstractmethod
    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Shrink ``model`` in place and note the kept widths in its manifest.

        ``statistics`` are those of the unpruned model. Called at most once on a fresh copy, before
        quantisation; with neutral strengths it does nothing. Raises ``Unsupported`` when the ratio cannot be met.
        """

    @abstractmethod
    def resize_fake_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Change only the shapes of ``model`` as ``prune_`` does: a copy of the dense model with fake tensors."""

    @abstractmethod
    def predict(self, statistics: Statistics) -> float:
        """Predict, without pruning, the nats per token that ``prune_`` will cost; NaN where one cannot tell."""


class Recovery(Protocol):
    """Wins back accuracy that pruning lost. Immutable."""

    @abstractmethod
    def recover_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Change the weights of the pruned ``model`` in place, not their shapes; an unpruned one stays as it is.

        ``statistics`` hold the dense model and the calibration rows. Called once, before quantisation.
        """

    @property
    @abstractmethod
    def trains(self) -> bool:
        """Return whether it changes anything, which makes predictions void."""


class Quantizer(Protocol):
    """Stores the weights of the blocks in fewer bits. Immutable.

    Runtimes decide by ``stored``, ``scheme`` and ``embeddings`` whether they store the same. So a class that leaves out
    a member is refused when the study is built, in a line that names it, instead of being taken for what it is not.
    """

    @property
    @abstractmethod
    def bits(self) -> float:
        """Return the nominal bits per block weight; the average where blocks differ."""

    @property
    @abstractmethod
    def stored(self) -> frozenset[int]:
        """Return the bit widths that the device has to store; empty where what it cannot store is simulated."""

    @property
    @abstractmethod
    def scheme(self) -> Scheme:
        """Return what 8 bits means. Engines that also round the inputs of narrower layers do so for ``w8a8`` only."""

    @property
    @abstractmethod
    def embeddings(self) -> int:
        """Return the bits of the token embedding and the head; 16 where they stay as they are."""

    @property
    @abstractmethod
    def predicts(self) -> bool:
        """Return whether :meth:`predict` is to be called, which needs gradients; where not, no loss is predicted."""

    @abstractmethod
    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """Replace the block linears of ``model`` in place by packed ones for ``device``.

        Called after pruning, exactly once, also at 16 bits. A layer whose shape the kernel refuses stays in
        16 bits and is named in ``model.notes``.
        """

    @abstractmethod
    def resize_fake_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """Change only the shapes and types of ``model`` as ``quantize_`` does; its tensors are fake."""

    @abstractmethod
    def predict(self, statistics: Statistics) -> float:
        """Predict the nats per token that storing the dense model this way will cost."""


class KeyValues(Protocol):
    """The bits in which a decoder keeps the keys and values of what it has read. Immutable."""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Return the bits of a key or value; 16 where the runtime keeps them as it does by itself."""


@runtime_checkable
class Runtime(Protocol):
    """An engine that runs models. Immutable; importing it, building it and asking it imports no engine.

    Life: the driver calls ``supports`` and ``requirements`` before any work; ``storage`` says how the model is to be
    compressed for it; then ``prepare`` makes it ready to run.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name, as in ``conf/runtime``."""

    @property
    @abstractmethod
    def is_torch(self) -> bool:
        """Return whether it runs the packed model itself: torch's predictions of memory and work hold then."""

    @abstractmethod
    def requirements(self) -> str | None:
        """Return a line that says what to install; None where nothing is missing."""

    @abstractmethod
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        """Return, in a line, why it cannot run ``candidate`` on ``device``; None where it can, as far as is known.

        It decides without the model, by what the device answers and not by the device's name. It must not start the
        device.
        """

    @abstractmethod
    def storage(self, quantizer: Quantizer) -> Quantizer:
        """Return the quantiser nearest to ``quantizer`` whose codes it can store."""

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Return the versions of what it is made of, by package."""

    @abstractmethod
    def prepare(self, context: BuildContext) -> Runner:
        """Make the model of ``context`` ready to run. Raises Unsupported for a model that it turns out not to run."""


class TorchBuildContext(Protocol):
    """The model and the calibration rows that a runner of torch is made from."""

    @property
    @abstractmethod
    def device(self) -> Device:
        """Return the device that the model is packed for."""

    @property
    @abstractmethod
    def calibration(self) -> Domains:
        """Return token batches by domain."""

    @property
    def kv_bits(self) -> int:
        """Return the bits of keys and values, one of the widths that the runtime says it has."""
        return 16

    @abstractmethod
    def model(self) -> LoadedModel:
        """Return the compressed model, which must not be changed."""


class BuildContext(TorchBuildContext, Protocol):
    """The model, calibration rows and folders that any runner is made from; what a runtime makes is kept by content."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """Return the tokenizer of the checkpoint."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """Return the number of threads that may compute at once."""

    @property
    @abstractmethod
    def quantizer(self) -> Quantizer:
        """Return the candidate's quantiser; the model's own may differ, see :meth:`Runtime.storage`."""

    @abstractmethod
    def input_powers(self) -> Mapping[str, Tensor]:
        """Return the mean square of every input of the block linears [in], by the name of their module.

        Empty without calibration.
        """

    @abstractmethod
    def graph(self, *content: object, write: Callable[[Path], None]) -> Path:
        """Return a folder of that content; ``write`` fills a new one where there is none yet."""

    @abstractmethod
    def engine(self, write: Callable[[Path], None], part: str = "") -> Path:
        """Return a folder of this candidate's model in this runtime, made as :meth:`graph` does; it may be added to.

        ``part``: one of several.
        """

    @abstractmethod
    def admit(self, folder: Path) -> None:
        """Raise Unsupported or MemoryError unless the engine of ``folder`` opens and runs.

        See ``objectives.runtime.engines.guard``.
        """

    @abstractmethod
    def release(self, owner: object, folder: Path) -> None:
        """Remove ``folder`` as soon as ``owner`` is gone."""


class Model(Protocol):
    """The place that a model is loaded from."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Return a folder, an id or a name, for people."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """Return the kind of model."""

    @abstractmethod
    def folder(self) -> Path:
        """Return the local folder with its files. Raises ModelError."""

    @abstractmethod
    def load(self) -> LoadedModel:
        """Load it in bfloat16 on the CPU, every weight accounted for. Raises ObjectiveError."""

    @abstractmethod
    def weights_hash(self) -> str:
        """Return the SHA-256 of its weights."""

    @abstractmethod
    def content_hash(self) -> str:
        """Return the SHA-256 of weights, config and tokenizer."""


@dataclass(frozen=True)
class Candidate:
    """One way to compress and run the model: a point of the search space."""

    pruning: Pruner
    quantization: Quantizer
    workload: Workload
    recovery: Recovery
    runtime: Runtime
    kv: KeyValues = KeyValueBits()  # noqa: RUF009  immutable
