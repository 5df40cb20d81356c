"""The words every part shares: candidate, measurement, failure, and the protocols between them.

A *candidate* is a recipe (how the model is compressed) and a workload (how it is run). Evaluating one
gives an *outcome*: a :class:`Measurement`, or a :class:`Failure` that says why there is none. A failed
trial is a value, never an exception, because a search must learn from it.

Free of torch at run time, so that the searcher, ``--help`` and the reports start fast. All quantities
are in base units: seconds, bytes, tokens/s, fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from objectives.recovery.off import Off

if TYPE_CHECKING:
    from torch import Tensor, nn

    from objectives.blocks import Unit
    from objectives.calibration import Domains, Moment, Statistics
    from objectives.models import LoadedModel
    from objectives.pruning.curve import Curve
    from objectives.quantization.grid import Codes

Head = Literal["causal_lm", "encoder", "seq2seq"]
"""What sits on the transformer: a next-token head (GPT type), the bare encoder (BERT type), or a next-token head on a
decoder that reads an encoder (T5 type)."""


@dataclass(frozen=True)
class Metric:
    """A measured quantity: its base unit, which way is better, and what it says."""

    name: str
    unit: str
    higher_is_better: bool
    meaning: str

    @property
    def column(self) -> str:
        """Name in tables: dots become underscores (``latency.p95`` -> ``latency_p95``)."""
        return self.name.replace(".", "_")


def _metrics(*rows: Metric) -> Mapping[str, Metric]:
    return MappingProxyType({row.name: row for row in rows})


METRICS: Mapping[str, Metric] = _metrics(
    Metric("throughput", "1/s", True, "output tokens or samples per second: the baseline's, times the paired speed-up"),
    Metric("speedup", "", True, "throughput over the baseline's: median of interleaved paired ratios"),
    Metric("latency.mean", "s", False, "one whole request batch, mean"),
    Metric("latency.p50", "s", False, "one whole request batch, median"),
    Metric("latency.p90", "s", False, "one whole request batch, 90th percentile"),
    Metric("latency.p95", "s", False, "one whole request batch, 95th percentile"),
    Metric("latency.p99", "s", False, "one whole request batch, 99th percentile"),
    Metric("ttft", "s", False, "time to first token: prefill of the prompts, median"),
    Metric("tpot", "s", False, "time per output token after the first, median"),
    Metric("peak_memory", "B", False, "weights plus activation peak (CPU), allocator peak (CUDA)"),
    Metric("activation_peak", "B", False, "memory a request batch adds to the resting model, KV cache included"),
    Metric("weight_bytes", "B", False, "all weights as stored in memory, scales and zero points counted"),
    Metric("block_bytes", "B", False, "weights of the transformer blocks as stored in memory"),
    Metric("memory_ratio", "", False, "peak memory over the baseline's"),
    Metric("effective_bits", "bit", False, "stored bits per block weight, scales and zero points counted"),
    Metric("pruning_ratio", "", True, "realised share of block parameters removed"),
    Metric("accuracy", "", True, "the task's score in [0, 1]"),
    Metric("accuracy_stderr", "", False, "standard error of the accuracy"),
    Metric("predicted_loss", "nat", False, "log-loss per token that the methods expect to have cost, before any run"),
    Metric("perplexity", "", False, "exp of the mean negative log-likelihood per token"),
)
"""Every metric that an objective, a table or MLflow may name."""


Scheme = Literal["w8a8", "weight_only", "fp8"]
"""What 8 bits means: int8 weights and activations, int8 weights alone, or both in float8_e4m3fn (GPUs of compute
capability 8.9). Below 8 bits only weights are rounded."""


class Reason(StrEnum):
    """Why a trial has no measurement."""

    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    NOT_FINITE = "not_finite"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"
    ERROR = "error"


@dataclass(frozen=True)
class Measurement:
    """What was measured of one candidate.

    ``metrics`` maps names of :data:`METRICS` to finite floats in base units; a metric that does not apply
    (``ttft`` of an encoder) is absent, never zero. ``samples`` keeps raw timings in seconds, warm-up
    excluded, and the per-example scores; ``notes`` says what was not done as asked (a layer kept in 16 bits).
    """

    metrics: Mapping[str, float]
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a candidate could not be measured."""

    reason: Reason
    message: str


Outcome = Measurement | Failure


@dataclass(frozen=True)
class Score:
    """Accuracy of a model on a task.

    ``accuracy`` in [0, 1] with its standard error; ``examples``: one score per example, in a fixed order, so
    that two models can be compared in pairs; ``extra``: further metrics by name, such as perplexity.
    """

    accuracy: float
    stderr: float
    examples: tuple[float, ...]
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Raw timings of repeated runs of one workload, in seconds, warm-up excluded.

    ``latency``: one entry per run; ``ttft``: one per run; ``tpot``: one per decode step. The last two are
    empty for encoders. ``items``: output tokens or samples that one run yields.
    """

    latency: tuple[float, ...]
    items: int
    ttft: tuple[float, ...] = ()
    tpot: tuple[float, ...] = ()


class Pruner(Protocol):
    """Removes structure from a model. Immutable; the same settings give the same model."""

    @property
    def ratio(self) -> float:
        """Share of block parameters to remove, in [0, 1)."""

    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Shrink ``model`` in place and note the kept widths in its manifest.

        ``statistics`` are those of the unpruned model. Called at most once on a fresh copy, before
        quantisation; with ``ratio`` 0 it does nothing. Raises ``Unsupported`` when the ratio cannot be met.
        """

    def predict(self, statistics: Statistics) -> float:
        """Nats per token that ``prune_`` is expected to cost, without doing it; NaN where one cannot tell."""


@runtime_checkable
class Criterion(Protocol):
    """What a set of channels is worth to a pruner. Immutable and hashable."""

    @property
    def allocation(self) -> Literal["global", "uniform"]:
        """``global`` where costs of different layers compare, else ``uniform``."""

    def curve(self, unit: Unit, model: LoadedModel, statistics: Statistics, removed: tuple[int, ...]) -> Curve:
        """The removal curve of one unit of the dense ``model``, at the numbers of ``removed`` sets, from 0 up."""


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
    """Stores the weights of the blocks in fewer bits. Immutable."""

    @property
    def bits(self) -> float:
        """Nominal bits per block weight, of some on average."""

    @property
    def stored(self) -> frozenset[int]:
        """Widths that the device has to store; none where what it cannot store is simulated."""

    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """Replace the block linears of ``model`` in place by packed ones for ``device``.

        Called after pruning, exactly once, also at 16 bits. A layer whose shape the kernel refuses stays in
        16 bits and is named in ``model.notes``.
        """

    def predict(self, statistics: Statistics) -> float:
        """Nats per token that storing the dense model so is expected to cost."""


@runtime_checkable
class Rounding(Protocol):
    """How one weight becomes codes of fewer than 8 bits. Immutable and hashable."""

    @property
    def group_size(self) -> int:
        """Input channels per scale, where the width allows it."""

    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Codes of ``weight`` [out, in]; ``moment``: of its inputs."""


class Workload(Protocol):
    """How a model is run when it is timed."""

    @property
    def batch_size(self) -> int:
        """Requests per batch."""

    @property
    def head(self) -> Head:
        """The kind of model it can drive."""

    def run(self, model: LoadedModel, device: Device) -> Timing:
        """Run one batch on ``model`` and time it, device synchronised before every stamp."""


@runtime_checkable
class Task(Protocol):
    """Data with a score."""

    @property
    def head(self) -> Head:
        """The kind of model it scores."""

    def calibration(self, model: LoadedModel) -> Domains:
        """Token batches (int64, [rows, tokens], no padding) by domain, which evaluation never sees."""

    def evaluate(self, model: LoadedModel) -> Score:
        """Score ``model``; the examples and their order are the same at every call."""


class Device(Protocol):
    """Where models run, and what its kernels can do."""

    @property
    def name(self) -> str:
        """``cpu`` or ``cuda``; the torch device type."""

    def start(self) -> None:
        """Set up the evaluating process; raises Unsupported when the device is not there."""

    def describe(self) -> Mapping[str, str]:
        """Hardware facts for the record."""

    def pack(self, linear: nn.Linear, bits: int, codes: Codes | None, scheme: Scheme) -> nn.Module:
        """A linear that stores its weight in ``bits``; ``codes`` are its rounded weights below 8 bits."""

    @property
    def sparse(self) -> bool:
        """Whether :meth:`pack_sparse` stores and multiplies half of the weights."""

    def pack_sparse(self, linear: nn.Linear) -> nn.Module:
        """A 16-bit linear of whose every four weights two are zero; raises Unsupported for a shape without kernel."""

    def pack_embeddings_(self, model: LoadedModel, bits: int) -> None:
        """Store the token embedding and the head in ``bits``, one of 8; raises Unsupported."""

    def place_(self, model: LoadedModel) -> None:
        """Make all that is not packed run here, in 16-bit storage."""

    @property
    def bits(self) -> frozenset[int]:
        """Bit widths that some kernel here really stores."""

    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    def activation_peak(self, run: Callable[[], object]) -> int:
        """Bytes that calling ``run()`` adds, at its peak, to what is allocated before."""


@dataclass(frozen=True)
class Candidate:
    """One way to compress and run the model: a point of the search space."""

    pruning: Pruner
    quantization: Quantizer
    workload: Workload
    recovery: Recovery = field(default_factory=Off)
