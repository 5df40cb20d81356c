"""The types that every part shares: measurement, failure, score, and what they are made of.

A *candidate* is a recipe (how the model is compressed) and a workload (how it is run). Evaluating one gives an
*outcome*: a :class:`Measurement`, or a :class:`Failure` that says why there is none: a search must learn from it. All
quantities are in base units: seconds, bytes, tokens/s, fractions in [0, 1]. The module is free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Head = Literal["causal_lm", "seq2seq", "encoder", "classifier", "token_classifier", "question_answering"]
"""The head on the transformer: a next-token head (GPT type); the same on a decoder that reads an encoder (T5 type); or
an encoder (BERT type), bare or with logits of a text's class, of each token's class, of where an answer is."""
ENCODERS: frozenset[Head] = frozenset({"encoder", "classifier", "token_classifier", "question_answering"})

Scheme = Literal["w8a8", "weight_only", "fp8"]
"""The meaning of 8 bits: int8 weights and activations, int8 weights alone, or both in float8_e4m3fn (GPUs of compute
capability 8.9). Below 8 bits only weights are rounded."""


class Reason(StrEnum):
    """The reason why a trial has no measurement."""

    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    NOT_FINITE = "not_finite"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class NoteCode(StrEnum):
    """The subject of a note. Programs decide by it, people read the text."""

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
    """A remark for a reader of the figures, such as something that was not done as asked."""

    code: NoteCode
    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class Stop(StrEnum):
    """The reason why a timing ended: narrow enough, known to be dominated, or one of the two budgets was spent."""

    PRECISION = "precision"
    BEHIND = "behind"
    ROUNDS = "rounds"
    SECONDS = "seconds"


class Reference(StrEnum):
    """The run that a candidate takes turns with: its own, the baseline's, or a small fixed workload."""

    ITSELF = "itself"
    BASELINE = "baseline"
    SENTINEL = "sentinel"


@dataclass(frozen=True)
class TimingFacts:
    """The circumstances of a timing: why it stopped, what the candidate took turns with, and by which clock."""

    stopped: Stop
    reference: Reference
    clock: Literal["wall", "cpu"]

    @property
    def is_beside_baseline(self) -> bool:
        """Return whether the candidate took turns with the baseline, or is the baseline."""
        return self.reference is not Reference.SENTINEL


class Decision(StrEnum):
    """The answer whether an accuracy reaches the floor: open with too few examples to tell, unscored without any."""

    REACHED = "reached"
    MISSED = "missed"
    OPEN = "open"
    UNSCORED = "unscored"


@dataclass(frozen=True)
class Verdict:
    """The decision whether a candidate reaches the floor, and how it was made: ``exact``: all examples were scored;
    ``betting``, ``asymptotic``: a race over some; ``none``: they cannot race.
    """

    decision: Decision
    method: Literal["exact", "betting", "asymptotic", "none"] = "exact"


class Speed(StrEnum):
    """The speed of a model beside the dense one's at the same batch size, as far as the interval tells."""

    FASTER = "faster"
    EQUAL = "equal"
    SLOWER = "slower"


class Size(StrEnum):
    """The memory that a model needs beside the dense one's at the same batch size."""

    SMALLER = "smaller"
    EQUAL = "equal"
    LARGER = "larger"


@dataclass(frozen=True)
class GainFacts:
    """The gains of compression over the dense model at the same batch size.

    The reasons are texts for people: the likeliest cause where nothing was gained, empty where nothing explains it.
    """

    speed: Speed
    memory: Size
    speed_reason: str = ""
    memory_reason: str = ""


Link = Literal["mean", "exp_minus_mean"]
"""The function that turns the mean example into the accuracy: none, or exp(-mean) of log-losses."""


@dataclass(frozen=True)
class Facts:
    """The typed results of a trial; ``timing_skipped``: it was not timed, as it misses the floor.

    ``tasks``: ``verdict`` and ``link`` of each of several tasks, by name; then ``verdict`` is on all that is asked.
    """

    timing: TimingFacts | None = None
    verdict: Verdict | None = None
    gains: GainFacts | None = None
    link: Link = "mean"
    timing_skipped: bool = False
    tasks: Mapping[str, Facts] = field(default_factory=dict)

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
        """Return whether the candidate was not scored, as it is dominated."""
        return self.verdict is not None and self.verdict.decision is Decision.UNSCORED


@dataclass(frozen=True)
class Measurement:
    """The measurement of one candidate.

    ``metrics`` maps names of :data:`objectives.metrics.METRICS` and ``CONDITIONS`` to finite floats in base units; one
    that does not apply (``ttft`` of an encoder) is absent, never zero. ``samples`` keeps raw timings in seconds,
    warm-up excluded, scores of examples, named by ``ids``, and replicates; ``notes`` say what was not done as asked;
    ``facts``: its typed results.
    """

    metrics: Mapping[str, float]
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict, compare=False)
    notes: tuple[Note, ...] = ()
    facts: Facts = field(default_factory=Facts)
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The failure of a candidate that could not be measured; ``metrics``: those that are known all the same;
    ``severity``: by what share it exceeds a limit, 1 where nobody knows.
    """

    reason: Reason
    message: str
    severity: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)


Outcome = Measurement | Failure


@dataclass(frozen=True)
class Score:
    """The accuracy of a model on a task.

    ``accuracy`` in [0, 1] with its standard error; ``examples``: one score per example, in a fixed order, so
    that two models can be compared in pairs; ``extra``: further metrics by name, such as perplexity. ``ids``: names of
    the examples. ``strata``: how many of them each domain has, in order, where there are several. ``link``: how the
    mean example of a domain becomes its accuracy: as it is, or exp(-mean); the accuracy is the mean over domains.
    ``total``: number of all examples, where only some were scored; then ``ids`` names these, and ``accuracy`` is an
    estimate. ``chance``: the accuracy of guessing; None where nobody says. ``replicates``: the accuracy over resampled
    examples, where it is not that of their mean (:mod:`objectives.tasks.resampling`). ``sums``: of ratios in extra.
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
    replicates: tuple[float, ...] = ()
    sums: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """The accuracy floor as the evaluator needs it: examples are scored until the floor is known to be kept or missed.

    ``floor``: the lowest accuracy allowed, in [0, 1]. ``error``: the chance of a wrong answer that one recipe may have.
    ``skip_timing_if_missed``: a candidate that misses the floor is not timed. ``incumbents``: by metric, what the
    front's members measured; timing may stop once one of them dominates the candidate. ``timed_first``: it is timed
    before it is scored, and not scored where it is dominated. ``pace``: seconds that the baseline took when the members
    were timed. ``floors``: of several tasks, 0 for none; ``error`` is each one's, ``floor`` that of their mean.
    """

    floor: float
    error: float
    skip_timing_if_missed: bool = False
    incumbents: tuple[Mapping[str, float], ...] = ()
    timed_first: bool = False
    pace: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)


Phase = Literal["encode", "prefill", "decode", "serve"]
"""The parts of a run: an encoder reads, a decoder reads all prompts, it writes a token a request; a server answers."""


@dataclass(frozen=True)
class Timing:
    """Raw timings of repeated runs of one workload, in seconds, warm-up excluded.

    ``latency``, ``cpu``: one entry per run, by the wall clock and in CPU time of all threads. ``encode``, ``ttft``: one
    per run; ``tpot``: one per decode step; empty where they do not apply. ``items``: tokens or samples a run gives.
    """

    latency: tuple[float, ...]
    items: int
    encode: tuple[float, ...] = ()
    ttft: tuple[float, ...] = ()
    tpot: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()


@dataclass(frozen=True)
class Memory:
    """The memory that one run adds to the resting model, in bytes.

    ``peaks``: the most allocated in each phase; ``cache``: keys and values at the end; ``extra``: more metrics by name.
    """

    peaks: Mapping[Phase, int]
    cache: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Return the largest peak of all phases."""
        return max(self.peaks.values())
