"""What runs, and what it runs on: runners, workloads, devices, tasks, and the watches that time them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from objectives.errors import Unsupported
from objectives.types import Head, Memory, Note, Phase, Scheme, Score, Timing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.packing.codes import Codes
    from objectives.protocols.readings import Counter, Peaks


class PhaseObserver(Protocol):
    """Told by a workload where its phases end; what it does then, is its own business: timing, weighing, tracing.

    Life: ``start`` when inputs are ready, then ``end_phase`` at the end of every phase.
    """

    def start(self, laps: int) -> None:
        """The first of ``laps`` phases begins."""

    def end_phase(self, phase: Phase, held: object = None) -> None:
        """A phase is over and the next begins. ``held``: what stays alive between phases, a KV cache."""


class Stopwatch(PhaseObserver, Protocol):
    """A watch that tells the time."""

    def timing(self, items: int) -> Timing:
        """Of the one run since ``start``."""


EndPhase = Callable[[Phase, object], None]
"""Told where a phase of a run ends, and what stays alive between phases: see :class:`PhaseObserver`."""


class Runner(Protocol):
    """A model that is ready to run, whatever engine runs it: what tasks score and workloads time.

    Tensors go in and come out where :attr:`device` is; ids are int64 [rows, tokens], ``mask`` is 1 where a token counts
    (padding on the right for encoders, on the left for decoders) and None where all do.
    """

    @property
    def head(self) -> Head:
        """The kind of model."""

    @property
    def tokenizer(self) -> Any:
        """That of transformers."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""

    @property
    def stored_bytes(self) -> int:
        """Of all weights."""

    @property
    def notes(self) -> Sequence[Note]:
        """What was not done as asked."""

    @property
    def simulated(self) -> bool:
        """Whether some weights are only rounded or masked, and stored in no fewer bits."""

    @property
    def predicted_loss(self) -> float:
        """Nats per token that the methods expect to have cost; NaN where one cannot tell."""

    @property
    def device(self) -> torch.device:
        """Where inputs belong."""

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encoders: last hidden states [rows, tokens, width]."""

    def logits(self, ids: Tensor) -> Tensor:
        """Decoders: of the token after every one [rows, tokens, vocabulary]."""

    def prefill(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Decoders: logits of the token after the last [rows, vocabulary], and the cache to go on from."""

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Decoders: as ``prefill``, one more token [rows, 1] for every row; the cache that was given is used up."""

    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        """Decoders: fill ``out`` [rows, new tokens] with what follows every row, greedily; whether a token ends a text
        is not looked at. ``end_phase`` is told after every pass.
        """

    def memory(self, workload: Workload, device: Device) -> Memory:
        """What running ``workload`` adds to the model's stored weights."""

    def weights(self, dense_weights: int) -> Mapping[str, float]:
        """Byte metrics; ``dense_weights``: number of weights in the block linears before pruning."""


@runtime_checkable
class RunsInTorch(Protocol):
    """A runner whose model torch runs itself, so that one can look into it."""

    model: LoadedModel

    @property
    def module(self) -> Any:
        """The model's module, of a class of transformers."""


class Workload(Protocol):
    """How a model is run when it is timed."""

    @property
    def batch_size(self) -> int:
        """Requests per batch."""

    @property
    def head(self) -> Head:
        """The kind of model it can drive."""

    @property
    def items(self) -> int:
        """Output tokens or samples of one run."""

    @property
    def tokens_read(self) -> int:
        """Prompt or source tokens of one run."""

    def representative_runs(self) -> Mapping[Phase, Workload]:
        """By phase, a shorter run whose last lap of that phase is as large as any of this one's."""

    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """Run one batch on ``model``, telling ``watch`` where its phases end."""


@runtime_checkable
class Task(Protocol):
    """Data with a score."""

    @property
    def head(self) -> Head:
        """The kind of model it scores."""

    def calibration(self, model: LoadedModel) -> Domains:
        """Token batches (int64, [rows, tokens], no padding) by domain, which evaluation never sees."""

    def evaluate(self, model: Runner) -> Score:
        """Score ``model``; the examples and their order are the same at every call."""


@runtime_checkable
class PartiallyScorable(Task, Protocol):
    """A task that can score some of its examples, each by itself."""

    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        """Scores of a few examples at a time, numbered as in ``evaluate``, in this order; one may stop early.

        All of them together, in any order, are what ``evaluate`` gives.
        """


class Device(Protocol):
    """Where models run, and what its kernels can do. Nothing is decided by its name: it is asked.

    A class of a user's own names this one as its base (``class Mine(Device)``). Then the abstract members are to be
    written, and the others have an answer that claims nothing: no energy counter, no parking, no engines beside torch.
    A class without the base has to have them all.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Return what people call it; measured peaks are kept by it, and studies of other names are other studies."""

    @abstractmethod
    def start(self) -> None:
        """Set up the evaluating process; raises Unsupported when the device is not there."""

    @abstractmethod
    def describe(self) -> Mapping[str, str]:
        """Return the hardware facts for the record, some of :data:`objectives.measuring.fingerprint.HARDWARE`."""

    @property
    @abstractmethod
    def bits(self) -> frozenset[int]:
        """Return the bit widths that some kernel here really stores."""

    @abstractmethod
    def pack(self, linear: nn.Linear, bits: int, codes: Codes | None, scheme: Scheme) -> nn.Module:
        """Make a linear that stores its weight in ``bits``; ``codes`` are its rounded weights below 8 bits."""

    @property
    def sparse(self) -> bool:
        """Tell whether :meth:`pack_sparse` stores and multiplies half of the weights."""
        return False

    def pack_sparse(self, linear: nn.Linear) -> nn.Module:
        """Make a 16-bit linear of whose every four weights two are zero; raises Unsupported for a shape without kernel.

        Asked only where :attr:`sparse` says so.
        """
        raise Unsupported(f"no kernel of {self.name} stores two of every four weights: {linear}")

    @property
    def embeddings(self) -> frozenset[int]:
        """Return the bit widths in which torch stores the token embedding and the head here."""
        return frozenset({16})

    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        """Store the token embedding and the head in ``bits``, one of 8; raises Unsupported."""
        raise Unsupported(f"embeddings: 16 bits on {self.name}, got {bits}")

    @abstractmethod
    def to_device_(self, model: LoadedModel) -> None:
        """Make all that is not packed run here, in 16-bit storage."""

    @property
    def parks(self) -> bool:
        """Tell whether memory is gained here by moving a model to the CPU with ``Module.to``."""
        return False

    @property
    def writes_checkpoints(self) -> bool:
        """Tell whether :mod:`objectives.export.checkpoint` can write and read what :meth:`pack` makes."""
        return False

    @property
    def runs_engines(self) -> bool:
        """Tell whether an engine that computes on the machine's CPU runs on this device."""
        return False

    @property
    def records_graphs(self) -> bool:
        """Tell whether ``torch.cuda.CUDAGraph`` records the passes of models here."""
        return False

    @abstractmethod
    def stopwatch(self) -> Stopwatch:
        """Return a watch for one run; the device is waited for before every stamp, or stamps the time itself."""

    @abstractmethod
    def memory(self, runner: Runner, workload: Workload) -> Memory:
        """Measure what running ``workload`` adds to what is allocated before, from the excerpts of its phases."""

    @abstractmethod
    def free_memory(self) -> int:
        """Return the bytes that could still be allocated."""

    @abstractmethod
    def peaks(self) -> Peaks:
        """Measure the most that it reads and multiplies, within seconds (:func:`objectives.devices.peaks.probe`)."""

    def energy(self) -> Iterable[Counter]:
        """Return the counters of the joules that it uses; those that do not answer are left out by the meter."""
        return ()

    def conditions(self) -> Mapping[str, float]:
        """Return what goes on here now: some of :data:`objectives.metrics.CONDITIONS`."""
        return {}
