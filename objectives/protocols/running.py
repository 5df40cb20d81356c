"""Protocols of runners, workloads and devices.

A class that names one of these protocols as its base must write every abstract member: without one, it cannot be
constructed, and the error names what is missing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from objectives.errors import Unsupported
from objectives.protocols.phases import EndPhase as EndPhase
from objectives.protocols.phases import PhaseObserver as PhaseObserver
from objectives.protocols.phases import Stopwatch as Stopwatch
from objectives.types import Head, Memory, Note, Phase, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from objectives.models import LoadedModel
    from objectives.packing.codes import Codes
    from objectives.protocols.readings import Counter, Peaks


class Runner(Protocol):
    """A model that is ready to run, whatever engine runs it. Tasks score it, and workloads time it.

    Tensors go in and come out where :attr:`device` is; ids are int64 [rows, tokens], ``mask`` is 1 where a token counts
    (padding on the left for decoders, on the right for all that an encoder reads) and None where all do. What these
    passes mean for encoder-decoders: :mod:`objectives.protocols.encoder_decoder`.
    """

    @property
    @abstractmethod
    def head(self) -> Head:
        """Return the kind of model."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """Return the tokenizer, of a class of transformers."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Return the number of token ids."""

    @property
    def labels(self) -> Sequence[str]:
        """Return the names of a classifier's classes, in the order of its logits; none of another model."""
        return ()

    @property
    def end_tokens(self) -> Sequence[int]:
        """Return the tokens that end a text, as the checkpoint's generation settings say, beside the tokenizer's."""
        return ()

    @property
    @abstractmethod
    def stored_bytes(self) -> int:
        """Return the bytes of all weights."""

    @property
    @abstractmethod
    def notes(self) -> Sequence[Note]:
        """Return notes on what was not done as asked."""

    @property
    @abstractmethod
    def simulated(self) -> bool:
        """Return whether some weights are only rounded or masked, and stored in no fewer bits."""

    @property
    @abstractmethod
    def predicted_loss(self) -> float:
        """Return the nats per token that the methods expect to have cost; NaN where one cannot tell."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Return the device on which inputs must be."""

    @abstractmethod
    def encode(self, ids: Tensor, mask: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """Return the last hidden states [rows, tokens, width] of a bare encoder, or the logits of its head.

        A ``classifier`` gives [rows, classes], a ``token_classifier`` [rows, tokens, classes], ``question_answering``
        [rows, tokens, 2]: where an answer begins and ends. ``types`` [rows, tokens]: the token types (segments) that
        the tokenizer made, for a model with a head that reads them; all 0 by default.
        """

    @abstractmethod
    def logits(self, ids: Tensor, first: int = 0) -> Tensor:
        """Return a decoder's logits of the token after every one from place ``first`` on.

        [rows, tokens - ``first``, vocabulary]; those before ``first`` cost no pass through the head where that can be.
        """

    @abstractmethod
    def prefill(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return a decoder's logits of the token after the last [rows, vocabulary], and the cache to go on from."""

    @abstractmethod
    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Read one more token [rows, 1] of every row, and return what ``prefill`` does.

        Only decoders do. The ``cache`` that is passed in is used up.
        """

    @abstractmethod
    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, end_phase: EndPhase | None = None) -> None:
        """Fill ``out`` [rows, new tokens] with a decoder's greedy continuation of every row.

        A token that ends a text does not stop it. ``end_phase`` is called after every pass.
        """

    @abstractmethod
    def memory(self, workload: Workload, device: Device) -> Memory:
        """Measure what running ``workload`` adds to the model's stored weights."""

    @abstractmethod
    def weights(self, dense_weights: int) -> Mapping[str, float]:
        """Return byte metrics; ``dense_weights``: number of weights in the block linears before pruning."""


@runtime_checkable
class SelectsRows(Protocol):
    """A runner that can go on with some rows of a batch alone, as others are finished, or with some more than once."""

    def select(self, cache: Any, rows: Sequence[int]) -> Any:
        """Return ``cache`` with these rows in this order; None where it cannot. ``cache`` is used up."""


@runtime_checkable
class RunsInTorch(Protocol):
    """A runner whose model torch runs itself, so that one can look into it."""

    model: LoadedModel

    @property
    @abstractmethod
    def module(self) -> Any:
        """Return the model's module, of a class of transformers."""


class Workload(Protocol):
    """A way to run a model when it is timed: its batch size, its lengths and its phases.

    A dataclass that names this protocol as its base gives a default to every field that stands for a member
    (``batch_size: int = 1``); without one, the member stays abstract.
    """

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Return the number of requests per batch."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """Return the kind of model that it can drive."""

    @property
    @abstractmethod
    def items(self) -> int:
        """Return the number of output tokens or samples of one run."""

    @property
    @abstractmethod
    def tokens_read(self) -> int:
        """Return the number of prompt or source tokens of one run."""

    @abstractmethod
    def representative_runs(self) -> Mapping[Phase, Workload]:
        """Return, by phase, a shorter run whose last lap of that phase is as large as any of this one's."""

    @abstractmethod
    def run(self, model: Runner, watch: PhaseObserver) -> None:
        """Run one batch on ``model``, telling ``watch`` where its phases end."""


class Device(Protocol):
    """A place where models run. It says what its kernels can do, and nothing is decided by its name.

    A user's own class names this one as its base (``class Mine(Device)``). It then has to write the abstract members,
    and the others have an answer that claims nothing: no energy counter, no parking, no engines beside torch. A class
    without the base has to have all of them.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name that people read. Measured peaks are kept under it, and another name is another study."""

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
        """Return whether :meth:`pack_sparse` stores and multiplies half of the weights."""
        return False

    def pack_sparse(self, linear: nn.Linear) -> nn.Module:
        """Make a 16-bit linear that stores two of every four weights, as the other two are zero.

        It is called only where :attr:`sparse` is true. Raises Unsupported for a shape without a kernel.
        """
        raise Unsupported(f"no kernel of {self.name} stores two of every four weights: {linear}")

    @property
    def embeddings(self) -> frozenset[int]:
        """Return the bit widths in which torch stores the token embedding and the head here."""
        return frozenset({16})

    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        """Store the token embedding and the head in ``bits``, below 16.

        Raises Unsupported for a width that :attr:`embeddings` lacks.
        """
        raise Unsupported(f"embeddings: 16 bits on {self.name}, got {bits}")

    @abstractmethod
    def to_device_(self, model: LoadedModel) -> None:
        """Make everything that is not packed run here, in 16-bit storage."""

    def arrange_(self, model: LoadedModel) -> None:
        """Bring weights that will not change any more into the order of this device's kernels; by default leave them.

        Gradients and whatever reads or changes weights come before.
        """
        return

    @property
    def parks(self) -> bool:
        """Return whether moving a model to the CPU with ``Module.to`` frees memory here."""
        return False

    @property
    def writes_checkpoints(self) -> bool:
        """Return whether :mod:`objectives.export.checkpoint` can write and read what :meth:`pack` makes."""
        return False

    @property
    def runs_engines(self) -> bool:
        """Return whether an engine that computes on the machine's CPU runs on this device."""
        return False

    @property
    def records_graphs(self) -> bool:
        """Return whether ``torch.cuda.CUDAGraph`` records the passes of models here."""
        return False

    @abstractmethod
    def stopwatch(self) -> Stopwatch:
        """Return a watch for one run. It waits for the device before every stamp, or the device stamps the time."""

    @abstractmethod
    def memory(self, runner: Runner, workload: Workload) -> Memory:
        """Measure what ``workload`` adds to what was allocated before, from its representative runs."""

    @abstractmethod
    def free_memory(self) -> int:
        """Return the bytes that could still be allocated."""

    @abstractmethod
    def peaks(self) -> Peaks:
        """Measure, within seconds, the highest rates at which it reads and multiplies.

        See :func:`objectives.devices.peaks.probe`.
        """

    def energy(self) -> Iterable[Counter]:
        """Return the counters of the joules that it uses; the meter leaves out those that do not answer."""
        return ()

    def conditions(self) -> Mapping[str, float]:
        """Return the present conditions here: some of :data:`objectives.metrics.CONDITIONS`."""
        return {}
