"""A candidate and its parts: how a model is pruned, recovered, quantised, and by which engine it runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from objectives.protocols.running import Device, Runner, Workload
from objectives.types import Head, Scheme

if TYPE_CHECKING:
    from pathlib import Path

    from objectives.calibration.moments import Domains
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel


class Pruner(Protocol):
    """Removes structure from a model. Immutable; the same settings give the same model.

    Settings that say how much goes declare a :class:`objectives.settings.Strength`, from which the baseline is known.
    """

    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Shrink ``model`` in place and note the kept widths in its manifest.

        ``statistics`` are those of the unpruned model. Called at most once on a fresh copy, before
        quantisation; with neutral strengths it does nothing. Raises ``Unsupported`` when the ratio cannot be met.
        """

    def resize_fake_(self, model: LoadedModel, statistics: Statistics) -> None:
        """As ``prune_``, on a copy of the dense model whose tensors are fake: only shapes change."""

    def predict(self, statistics: Statistics) -> float:
        """Nats per token that ``prune_`` is expected to cost, without doing it; NaN where one cannot tell."""


class Recovery(Protocol):
    """Wins back accuracy that pruning lost. Immutable."""

    def recover_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Change the weights of the pruned ``model`` in place, not their shapes; an unpruned one stays as it is.

        ``statistics`` hold the dense model and the calibration rows. Called once, before quantisation.
        """

    @property
    def trains(self) -> bool:
        """Whether it changes anything, which makes predictions void."""


class Quantizer(Protocol):
    """Stores the weights of the blocks in fewer bits. Immutable.

    Runtimes decide by ``stored``, ``scheme`` and ``embeddings`` whether they store the same. So a class that leaves out
    a member is refused when the study is built, in a line that names it, instead of being taken for what it is not.
    """

    @property
    @abstractmethod
    def bits(self) -> float:
        """Nominal bits per block weight, of some on average."""

    @property
    @abstractmethod
    def stored(self) -> frozenset[int]:
        """Widths that the device has to store; none where what it cannot store is simulated."""

    @property
    @abstractmethod
    def scheme(self) -> Scheme:
        """Say what 8 bits means. Engines that round the inputs of narrower layers too do so for ``w8a8`` only."""

    @property
    @abstractmethod
    def embeddings(self) -> int:
        """Return the bits of the token embedding and the head; 16 where they stay as they are."""

    @property
    @abstractmethod
    def predicts(self) -> bool:
        """Tell whether :meth:`predict` is to be asked, which needs gradients; without it no loss is predicted."""

    @abstractmethod
    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """Replace the block linears of ``model`` in place by packed ones for ``device``.

        Called after pruning, exactly once, also at 16 bits. A layer whose shape the kernel refuses stays in
        16 bits and is named in ``model.notes``.
        """

    @abstractmethod
    def resize_fake_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """As ``quantize_``, on a model whose tensors are fake: only shapes and types change."""

    @abstractmethod
    def predict(self, statistics: Statistics) -> float:
        """Nats per token that storing the dense model so is expected to cost."""


@runtime_checkable
class Runtime(Protocol):
    """An engine that runs models. Immutable; importing it, building it and asking it imports no engine.

    Life: ``supports`` and ``requirements`` are asked by the driver, before any work; ``storage`` says how the model is
    to be compressed for it; then ``prepare`` makes it ready to run.
    """

    @property
    def name(self) -> str:
        """As in ``conf/runtime``."""

    @property
    def is_torch(self) -> bool:
        """Whether it runs the packed model itself: torch's predictions of memory and work hold then."""

    def requirements(self) -> str | None:
        """What to install, where something is missing: one line."""

    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        """Return why it cannot run ``candidate`` on ``device``, in a line; None where it can, as far as one knows
        without the model. It goes by what the device answers, not by its name, and must not start it.
        """

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """The quantiser whose codes it can store, nearest to the one asked for."""

    def versions(self) -> Mapping[str, str]:
        """Of what it is made of, by package."""

    def prepare(self, materials: BuildContext) -> Runner:
        """Ready to run. Raises Unsupported for a model that it turns out not to run."""


class TorchBuildContext(Protocol):
    """What a runner of torch is made of."""

    @property
    def device(self) -> Device:
        """Return the device that the model is packed for."""

    @property
    def calibration(self) -> Domains:
        """Token batches by domain."""

    def model(self) -> LoadedModel:
        """The compressed model; not to be changed."""


class BuildContext(TorchBuildContext, Protocol):
    """What a runner is made of, and where a runtime keeps what it makes, by content."""

    @property
    def tokenizer(self) -> Any:
        """Of the checkpoint."""

    @property
    def threads(self) -> int:
        """That may compute at once."""

    @property
    def quantizer(self) -> Quantizer:
        """What the candidate asks for: the model's own may differ, see :meth:`Runtime.storage`."""

    def graph(self, *content: object, write: Callable[[Path], None]) -> Path:
        """A folder of that content; ``write`` fills a new one where there is none yet."""

    def engine(self, write: Callable[[Path], None], part: str = "") -> Path:
        """A folder of this candidate's model in this runtime, made likewise; it may be added to.

        ``part``: one of several.
        """

    def admit(self, folder: Path) -> None:
        """Raise Unsupported or MemoryError unless the engine of ``folder`` opens and runs: see
        ``objectives.runtime.engines.guard``.
        """

    def release(self, owner: object, folder: Path) -> None:
        """``folder`` goes when ``owner`` does."""


class Model(Protocol):
    """Where a model comes from."""

    @property
    def path(self) -> str:
        """A folder, an id or a name, for people."""

    @property
    def head(self) -> Head:
        """The kind of model."""

    def folder(self) -> Path:
        """The local folder with its files. Raises ModelError."""

    def load(self) -> LoadedModel:
        """Load it in bfloat16 on the CPU, every weight accounted for. Raises ObjectiveError."""

    def weights_hash(self) -> str:
        """SHA-256 over its weights."""

    def content_hash(self) -> str:
        """SHA-256 over weights, config and tokenizer."""


@dataclass(frozen=True)
class Candidate:
    """One way to compress and run the model: a point of the search space."""

    pruning: Pruner
    quantization: Quantizer
    workload: Workload
    recovery: Recovery
    runtime: Runtime
