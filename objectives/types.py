"""The words every part shares: candidate, measurement, failure, and the protocols between them.

A *candidate* is a recipe (how the model is compressed) and a workload (how it is run). Evaluating one
gives an *outcome*: a :class:`Measurement`, or a :class:`Failure` that says why there is none. A failed
trial is a value, never an exception, because a search must learn from it.

Free of torch at run time, so that the searcher, ``--help`` and the reports start fast. All quantities
are in base units: seconds, bytes, tokens/s, fractions in [0, 1].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from objectives.errors import Unsupported
from objectives.recovery.off import Off
from objectives.runtime.torch import Torch

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from objectives.blocks import Unit
    from objectives.calibration import Domains, Moment, Statistics
    from objectives.devices.counters import Counter
    from objectives.devices.peaks import Peaks
    from objectives.inspection import Inspection
    from objectives.models import LoadedModel
    from objectives.pruning.curve import Curve
    from objectives.quantization.grid import Codes

Head = Literal["causal_lm", "encoder", "seq2seq"]
"""What sits on the transformer: a next-token head (GPT type), the bare encoder (BERT type), or a next-token head on a
decoder that reads an encoder (T5 type)."""


Scheme = Literal["w8a8", "weight_only", "fp8"]
"""What 8 bits means: int8 weights and activations, int8 weights alone, or both in float8_e4m3fn (GPUs of compute
capability 8.9). Below 8 bits only weights are rounded."""


Side = Literal["encoder", "decoder"]
"""Which half of an encoder-decoder reads a sequence; decoders and encoders have one half."""


@dataclass(frozen=True)
class Span:
    """The tokens of one sequence that a model must be able to hold: ``parts`` added up, which ``settings`` ask for."""

    settings: tuple[str, ...]
    parts: tuple[int, ...]
    side: Side = "decoder"

    @property
    def tokens(self) -> int:
        """All of them."""
        return sum(self.parts)


@runtime_checkable
class Bounded(Protocol):
    """A workload or task that says how long the sequences are that it reads and writes.

    One that does not is taken as it is: what a model cannot hold shows when it runs.
    """

    @property
    def spans(self) -> Sequence[Span]:
        """One for every kind of sequence; ``settings`` are names of its own fields."""


@runtime_checkable
class Supplied(Protocol):
    """A task that can tell, without a model, whether its corpus holds what it asks for.

    One that cannot is taken as it is: what is missing shows when its rows are made.
    """

    def require_documents(self) -> None:
        """Raise ModelError where the corpus has too few documents, however long they are."""


class Reason(StrEnum):
    """Why a trial has no measurement."""

    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    NOT_FINITE = "not_finite"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class NoteCode(StrEnum):
    """What a note is about; programs decide by it, people read the text."""

    CONTENDED = "contended"
    WAITED = "waited"
    IMPRECISE = "imprecise"
    DRIFTED = "drifted"
    THROTTLED = "throttled"
    SHARED_GPU = "shared_gpu"
    DENSE_CONTENDED = "dense_contended"
    SIMULATED = "simulated"
    NOT_TIMED = "not_timed"
    NOT_SCORED = "not_scored"
    SCORED_ELSEWHERE = "scored_elsewhere"
    KEPT_IN_16_BITS = "kept_in_16_bits"
    OTHER = "other"

    @property
    def is_of_timing(self) -> bool:
        """Return whether a later timing of the same trial replaces such notes."""
        return self in (
            NoteCode.CONTENDED, NoteCode.WAITED, NoteCode.IMPRECISE, NoteCode.DRIFTED, NoteCode.THROTTLED,
            NoteCode.SHARED_GPU,
        )  # fmt: skip


@dataclass(frozen=True)
class Note:
    """Something that was not done as asked, or that a reader of the figures should know."""

    code: NoteCode
    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class Stop(StrEnum):
    """Why a timing ended: narrow enough, known to be dominated, or one of the two budgets was spent."""

    PRECISION = "precision"
    BEHIND = "behind"
    ROUNDS = "rounds"
    SECONDS = "seconds"


@dataclass(frozen=True)
class TimingFacts:
    """How a candidate was timed: why that stopped, what it took turns with, and by which clock."""

    stopped: Stop
    reference: Literal["itself", "baseline", "sentinel"]
    clock: Literal["wall", "cpu"]

    @property
    def is_beside_baseline(self) -> bool:
        """Return whether it took turns with the baseline, or is the baseline."""
        return self.reference != "sentinel"


class Decision(StrEnum):
    """Whether an accuracy reaches the floor; ``open``: too few examples to tell, ``unscored``: nobody asked."""

    REACHED = "reached"
    MISSED = "missed"
    OPEN = "open"
    UNSCORED = "unscored"


@dataclass(frozen=True)
class Verdict:
    """What a candidate's examples say of the floor, and by which method.

    ``exact``: all were scored; ``betting``, ``asymptotic``: a race over some; ``none``: examples that cannot race.
    """

    decision: Decision
    method: Literal["exact", "betting", "asymptotic", "none"] = "exact"


class Speed(StrEnum):
    """Whether a model is faster than the dense one at the same batch size, as far as the interval tells."""

    FASTER = "faster"
    EQUAL = "equal"
    SLOWER = "slower"


class Size(StrEnum):
    """Whether a model needs less memory than the dense one at the same batch size."""

    SMALLER = "smaller"
    EQUAL = "equal"
    LARGER = "larger"


@dataclass(frozen=True)
class GainFacts:
    """What compression gained over the dense model at the same batch size.

    The reasons are texts for people: the likeliest cause where nothing was gained, empty where nothing explains it.
    """

    speed: Speed
    memory: Size
    speed_reason: str = ""
    memory_reason: str = ""


Link = Literal["mean", "exp_minus_mean"]
"""How the mean example becomes the accuracy: as it is, or exp(-mean) of log-losses."""


@dataclass(frozen=True)
class Facts:
    """What is known of a trial besides numbers; ``timing_skipped``: it was not timed, as it misses the floor."""

    timing: TimingFacts | None = None
    verdict: Verdict | None = None
    gains: GainFacts | None = None
    link: Link = "mean"
    timing_skipped: bool = False

    @property
    def is_cut_short(self) -> bool:
        """Return whether timing ended as soon as the candidate was known to be dominated."""
        return self.timing is not None and self.timing.stopped is Stop.BEHIND

    @property
    def is_missed(self) -> bool:
        """Return whether the accuracy was found to miss the floor."""
        return self.verdict is not None and self.verdict.decision is Decision.MISSED

    @property
    def is_unscored(self) -> bool:
        """Return whether nobody asked for the accuracy, as the candidate is dominated."""
        return self.verdict is not None and self.verdict.decision is Decision.UNSCORED


@dataclass(frozen=True)
class Measurement:
    """What was measured of one candidate.

    ``metrics`` maps names of :data:`objectives.metrics.METRICS` and ``CONDITIONS`` to finite floats in base units; one
    that does not apply (``ttft`` of an encoder) is absent, never zero. ``samples`` keeps raw timings in seconds,
    warm-up excluded, and the per-example scores, whose names are ``ids``; ``notes`` says what was not done as asked (a
    layer kept in 16 bits); ``facts`` are the typed results of its stages.
    """

    metrics: Mapping[str, float]
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict, compare=False)
    notes: tuple[Note, ...] = ()
    facts: Facts = field(default_factory=Facts)
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a candidate could not be measured; ``severity``: by what share it exceeds a limit, 1 where nobody knows.

    ``metrics``: what is known of it all the same, as the memory it is predicted to need.
    """

    reason: Reason
    message: str
    severity: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)


Outcome = Measurement | Failure


@dataclass(frozen=True)
class Score:
    """Accuracy of a model on a task.

    ``accuracy`` in [0, 1] with its standard error; ``examples``: one score per example, in a fixed order, so
    that two models can be compared in pairs; ``extra``: further metrics by name, such as perplexity. ``ids``: names of
    the examples. ``strata``: how many of them each domain has, in order, where there are several. ``link``: how the
    mean example of a domain becomes its accuracy: as it is, or exp(-mean); the accuracy is the mean over domains.
    ``total``: of all examples, where only some were scored; then ``ids`` names these, and ``accuracy`` is an estimate.
    ``chance``: the accuracy that takes no model, by guessing; None where nobody says.
    """

    accuracy: float
    stderr: float
    examples: tuple[float, ...]
    extra: Mapping[str, float] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    strata: tuple[int, ...] = ()
    link: Link = "mean"
    total: int | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Gate:
    """The accuracy floor as the evaluator needs it: examples are scored until the floor is known to be kept or missed.

    ``floor``: the lowest accuracy allowed, in [0, 1]. ``error``: the chance of a wrong answer that one recipe may have.
    ``skip``: a candidate that misses the floor is not timed. ``ahead``: by metric, what the front's members measured.
    Timing may stop as soon as the candidate is known to be dominated by one of them. ``timed_first``: the candidate is
    timed before it is scored, and not scored at all where it is dominated. ``pace``: seconds that the baseline took
    when the members were timed.
    """

    floor: float
    error: float
    skip: bool = False
    ahead: tuple[Mapping[str, float], ...] = ()
    timed_first: bool = False
    pace: float | None = None


Phase = Literal["encode", "prefill", "decode"]
"""Parts of a run that react differently to bits and batch size: an encoder reading, a decoder reading all prompts at
once, a decoder writing one token per request."""


@dataclass(frozen=True)
class Timing:
    """Raw timings of repeated runs of one workload, in seconds, warm-up excluded.

    ``latency``, ``cpu``: one entry per run, by the wall clock and in CPU time of all threads. ``encode``, ``ttft``: one
    per run; ``tpot``: one per decode step; empty where they do not apply. ``items``: output tokens or samples that one
    run yields.
    """

    latency: tuple[float, ...]
    items: int
    encode: tuple[float, ...] = ()
    ttft: tuple[float, ...] = ()
    tpot: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()


class Watch(Protocol):
    """Told by a workload where its phases end; what it does then, is its own business: timing, weighing, tracing.

    Life: ``start`` when inputs are ready, then ``lap`` at the end of every phase.
    """

    def start(self, laps: int) -> None:
        """The first of ``laps`` phases begins."""

    def lap(self, phase: Phase, held: object = None) -> None:
        """A phase is over and the next begins. ``held``: what stays alive between phases, a KV cache."""


class Stopwatch(Watch, Protocol):
    """A watch that tells the time."""

    def timing(self, items: int) -> Timing:
        """Of the one run since ``start``."""


@dataclass(frozen=True)
class Memory:
    """What one run adds to the resting model, in bytes.

    ``peaks``: the most that was allocated in each phase; ``cache``: keys and values at the end; ``extra``: further
    metrics by name.
    """

    peaks: Mapping[Phase, int]
    cache: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Of all phases."""
        return max(self.peaks.values())


class Pruner(Protocol):
    """Removes structure from a model. Immutable; the same settings give the same model.

    Settings that say how much goes declare a :class:`objectives.settings.Strength`, from which the baseline is known.
    """

    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        """Shrink ``model`` in place and note the kept widths in its manifest.

        ``statistics`` are those of the unpruned model. Called at most once on a fresh copy, before
        quantisation; with neutral strengths it does nothing. Raises ``Unsupported`` when the ratio cannot be met.
        """

    def sketch_(self, model: LoadedModel, statistics: Statistics) -> None:
        """As ``prune_``, on a copy of the dense model whose tensors are fake: only shapes change."""

    def predict(self, statistics: Statistics) -> float:
        """Nats per token that ``prune_`` is expected to cost, without doing it; NaN where one cannot tell."""


@runtime_checkable
class Masking(Protocol):
    """A pruner that only sets weights to zero: all shapes stay, and a dense kernel multiplies the zeros."""

    @property
    def pattern(self) -> str:
        """Say where the zeros may lie: ``unstructured``, or ``2:4``, two of every four."""


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
    def sketch_(self, model: LoadedModel, statistics: Statistics, device: Device) -> None:
        """As ``quantize_``, on a model whose tensors are fake: only shapes and types change."""

    @abstractmethod
    def predict(self, statistics: Statistics) -> float:
        """Nats per token that storing the dense model so is expected to cost."""


@runtime_checkable
class Rounding(Protocol):
    """How one weight becomes codes of fewer than 8 bits. Immutable and hashable."""

    @property
    @abstractmethod
    def group_size(self) -> int:
        """Input channels per scale, where the width allows it."""

    @abstractmethod
    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Codes of ``weight`` [out, in]; ``moment``: of its inputs."""


Lap = Callable[[Phase, object], None]
"""Told where a phase of a run ends, and what stays alive between phases: see :class:`Watch`."""


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

    def generate(self, ids: Tensor, out: Tensor, mask: Tensor | None = None, lap: Lap | None = None) -> None:
        """Decoders: fill ``out`` [rows, new tokens] with what follows every row, greedily; whether a token ends a text
        is not looked at. ``lap`` is told after every pass.
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

    def prepare(self, materials: Materials) -> Runner:
        """Ready to run. Raises Unsupported for a model that it turns out not to run."""


class TorchMaterials(Protocol):
    """What a runner of torch is made of."""

    @property
    def device(self) -> Device:
        """Return the device that the model is packed for."""

    @property
    def calibration(self) -> Domains:
        """Token batches by domain."""

    def model(self) -> LoadedModel:
        """The compressed model; not to be changed."""


class Materials(TorchMaterials, Protocol):
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
        ``objectives.runtime.guard``.
        """

    def release(self, owner: object, folder: Path) -> None:
        """``folder`` goes when ``owner`` does."""


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

    def excerpts(self) -> Mapping[Phase, Workload]:
        """By phase, a shorter run whose last lap of that phase is as large as any of this one's."""

    def run(self, model: Runner, watch: Watch) -> None:
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
class Divisible(Task, Protocol):
    """A task that can score some of its examples, each by itself."""

    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        """Scores of a few examples at a time, numbered as in ``evaluate``, in this order; one may stop early.

        All of them together, in any order, are what ``evaluate`` gives.
        """


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


@runtime_checkable
class Inspectable(Protocol):
    """A model whose files can be asked before torch is imported. Of one that cannot, loading says what is wrong."""

    def inspect(self) -> Inspection | None:
        """What its files say; None while nothing is here yet. Raises ObjectiveError for what cannot be right."""

    def unprunable(self) -> str | None:
        """Why no pruner works on it, in a line; None where one may, or where nobody knows yet."""


@runtime_checkable
class Detectable(Protocol):
    """A device that can be asked before torch is imported. Of one that cannot, starting says what is wrong."""

    def absent(self) -> str | None:
        """Why it is not here, in a line that names the setting; None where it is."""

    def total_memory(self) -> int | None:
        """Bytes that a run can never exceed; None where that is not known."""


@runtime_checkable
class Threaded(Protocol):
    """A device whose work is done by threads of this process. Of another, CPU time says nothing about speed."""

    @property
    def threads(self) -> int | None:
        """Return how many; None for all that the process may use."""


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
    def place_(self, model: LoadedModel) -> None:
        """Make all that is not packed run here, in 16-bit storage."""

    @property
    def parks(self) -> bool:
        """Tell whether memory is gained here by moving a model to the CPU with ``Module.to``."""
        return False

    @property
    def writes_checkpoints(self) -> bool:
        """Tell whether :mod:`objectives.checkpoint` can write and read what :meth:`pack` makes."""
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


@dataclass(frozen=True)
class Candidate:
    """One way to compress and run the model: a point of the search space."""

    pruning: Pruner
    quantization: Quantizer
    workload: Workload
    recovery: Recovery = field(default_factory=Off)
    runtime: Runtime = field(default_factory=Torch)


@dataclass(frozen=True)
class CheckReport:
    """What a look at a problem saw (:mod:`objectives.checkup`); seconds, bytes, fractions.

    ``positions``: the most tokens that the model reads; ``padding``: its pad token; ``block_parameters``: weights of
    the block linears, which are pruned and quantised, ``undescribed``: why they are not. ``calibration``: rows and
    tokens by domain. ``examples``: some scores by name; ``accuracy``, ``extra``: of them, of all where ``whole``.
    ``peak_memory``: weights and one run of the baseline's workload. ``left_out``: rows that are not scored, and why.
    """

    model_type: str
    parameters: int
    vocabulary: int
    positions: int | None
    padding: str | None
    blocks: int
    block_parameters: int
    calibration: Mapping[str, tuple[int, int]]
    examples: Mapping[str, float]
    accuracy: float
    extra: Mapping[str, float]
    whole: bool
    run_seconds: float
    peak_memory: int
    load_seconds: float
    score_seconds: float
    undescribed: str = ""
    left_out: str = ""
