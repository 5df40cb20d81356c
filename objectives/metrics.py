"""The quantities that a trial may report: their names, base units, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from objectives.types import TimingFacts

Quantity = Literal["time", "memory", "roofline", "prediction", "other"]


@dataclass(frozen=True)
class Metric:
    """A measured quantity: its base unit, which way is better, and what it says.

    ``measures``: what it is a quantity of, where the unit does not tell, as in ratios.
    """

    name: str
    unit: str
    higher_is_better: bool
    meaning: str
    measures: Quantity | None = None

    @property
    def quantity(self) -> Quantity:
        """Return what it is a quantity of."""
        return self.measures or _BY_UNIT.get(self.unit, "other")

    @property
    def column(self) -> str:
        """Return the name in tables: dots become underscores (``latency.p95`` -> ``latency_p95``)."""
        return self.name.replace(".", "_")


_BY_UNIT: Mapping[str, Quantity] = {"s": "time", "1/s": "time", "requests/s": "time", "B": "memory", "bit": "memory"}


def _metrics(*rows: Metric) -> Mapping[str, Metric]:
    return MappingProxyType({row.name: row for row in rows})


def _tails(name: str, meaning: str) -> tuple[Metric, ...]:
    """Return the metrics of a time's distribution over the requests of a load."""
    tails = (("mean", "mean"), ("p90", "90th percentile"), ("p95", "95th percentile"), ("p99", "99th percentile"))
    return tuple(Metric(f"{name}.{end}", "s", False, f"{text} of the {meaning}") for end, text in tails)


METRICS: Mapping[str, Metric] = _metrics(
    Metric("throughput", "1/s", True,
           "output tokens (or samples) per second: the baseline's throughput times the paired speed-up"),
    Metric("speedup", "", True,
           "throughput divided by the baseline's: the median of ratios from runs in turns", measures="time"),
    Metric("latency.mean", "s", False, "mean time that a batch takes (of a load: one request)"),
    Metric("latency.p50", "s", False, "median time that a batch takes (of a load: one request)"),
    Metric("latency.p90", "s", False, "90th percentile of the time that a batch takes (of a load: one request)"),
    Metric("latency.p95", "s", False, "95th percentile of the time that a batch takes (of a load: one request)"),
    Metric("latency.p99", "s", False, "99th percentile of the time that a batch takes (of a load: one request)"),
    Metric("latency.stdev", "s", False, "standard deviation of the time that a batch takes (of a load: one request)"),
    Metric("encode", "s", False, "median time in which the encoder of an encoder-decoder reads the source texts"),
    Metric("latency_ratio", "", False,
           "time of one batch of requests divided by the baseline's, computed from the paired speed-up",
           measures="time"),
    Metric("ttft", "s", False, "time to first token: the median time in which the prompts are read"),
    *_tails("ttft", "time to first token of one request of a load"),
    Metric("tpot", "s", False, "time per output token: the median over the tokens after the first"),
    *_tails("tpot", "time per output token of one request of a load, the first token left out"),
    Metric("itl", "s", False, "inter-token latency: the median time between two parts of a streamed answer"),
    *_tails("itl", "time between two parts of a streamed answer"),
    Metric("request_throughput", "requests/s", True, "requests of a load that are answered per second"),
    Metric("prompt_throughput", "1/s", True, "prompt tokens of a load that are read per second"),
    Metric("goodput", "requests/s", True, "requests of a load per second that keep the workload's slo_ttft and others"),
    Metric("per_token", "s", False, "median time of one batch of requests divided by the output tokens of one request"),
    Metric("prefill_throughput", "1/s", True, "prompt tokens read per second, until the first output token"),
    Metric("decode_throughput", "1/s", True, "output tokens per second, the first token left out"),
    Metric("peak_memory", "B", False,
           "weights plus the peak that a run adds (torch's allocator); other engines: resident memory"),
    Metric("activation_peak", "B", False, "largest memory that a run adds to the loaded model, KV cache included"),
    Metric("activation_peak.encode", "B", False,
           "largest memory that encoding the source texts adds to the loaded model"),
    Metric("activation_peak.prefill", "B", False, "largest memory that reading the prompts adds to the loaded model"),
    Metric("activation_peak.decode", "B", False,
           "largest memory that writing the output tokens adds to the loaded model"),
    Metric("cache_bytes", "B", False, "size of the KV cache at the end of one batch of requests"),
    Metric("kv_bytes_per_token", "B", False,
           "bytes of the keys and values that a decoder keeps of each token, scales included"),
    Metric("resident_peak", "B", False,
           "resident memory that a run adds to the process, by the kernel's count; depends on the heap"),
    Metric("reserved_peak", "B", False, "CUDA: largest memory that torch's caching allocator reserved from the driver"),
    Metric("process_memory", "B", False, "CUDA: memory that the driver counts for the process, CUDA context included"),
    Metric("predicted_peak", "B", False, "peak memory predicted from tensor shapes before the model is built"),
    Metric("weight_bytes", "B", False, "size of all weights in memory, scales and zero points included"),
    Metric("disk_bytes", "B", False, "size of the weights in the exported folder"),
    Metric("block_bytes", "B", False, "size of the transformer blocks' weights in memory"),
    Metric("memory_ratio", "", False, "peak memory divided by the baseline's", measures="memory"),
    Metric("compression_speedup", "", True,
           "speed divided by that of the dense model at the same batch size", measures="time"),
    Metric("batching_speedup", "", True,
           "speed of torch's dense model at the same batch size, divided by the baseline's", measures="time"),
    Metric("compression_memory_ratio", "", False,
           "peak memory divided by that of the dense model at the same batch size", measures="memory"),
    Metric("own_speedup", "", True,
           "speed divided by that of the runtime's own dense model (32 bits; torch: 16), same batch size",
           measures="time"),
    Metric("runtime_speedup", "", True,
           "speed of the runtime's own dense model at the same batch size, divided by the baseline's",
           measures="time"),
    Metric("runtime_bytes", "B", False,
           "resident memory of a loaded engine before it runs, its own copies of weights included"),
    Metric("conversion_seconds", "s", False,
           "time in which the compressed model was converted or compiled for its runtime"),
    Metric("promised_speedup", "", True,
           "highest compression_speedup that the bytes and operations allow on this device", measures="prediction"),
    Metric("weight_ratio", "", False, "size of all weights divided by the dense model's", measures="memory"),
    Metric("flops", "", False, "floating-point and integer operations of one batch of requests"),
    Metric("flops_ratio", "", False, "operations divided by those of the dense model at the same batch size"),
    Metric("roofline.encode", "", True,
           "share of the device's bandwidth or compute limit reached while encoding the source texts",
           measures="roofline"),
    Metric("roofline.prefill", "", True,
           "share of the device's bandwidth or compute limit reached while reading the prompts", measures="roofline"),
    Metric("roofline.decode", "", True,
           "share of the device's bandwidth or compute limit reached while writing the output", measures="roofline"),
    Metric("energy", "J", False, "energy per output token (or sample), where the device counts it"),
    Metric("effective_bits", "bit", False, "bits stored per weight of the blocks, scales and zero points included"),
    Metric("pruning_ratio", "", True, "share of the transformer blocks' parameters that pruning really removed"),
    Metric("accuracy", "", True, "score of the task, between 0 and 1"),
    Metric("accuracy_stderr", "", False, "standard error of the accuracy"),
    Metric("accuracy_difference", "", True, "accuracy minus the baseline's on the same examples"),
    Metric("accuracy_difference.low", "", True,
           "lower end of the 95 % interval of accuracy_difference, from a paired comparison"),
    Metric("accuracy_difference.high", "", True,
           "upper end of the 95 % interval of accuracy_difference, from a paired comparison"),
    Metric("predicted_loss", "nat", False,
           "increase in log-loss per token that the compression methods predict before any run"),
    Metric("perplexity", "", False, "exponential of the mean negative log-likelihood per token"),
)  # fmt: skip
"""Every metric that an objective, a table or MLflow may name."""


OF_LOADS: frozenset[str] = frozenset(
    {"itl", "request_throughput", "prompt_throughput", "goodput"}
    | {name for name in METRICS if name.startswith(("ttft.", "tpot.", "itl."))}
)
"""Metrics that only a workload on a server has."""
OF_DECODERS: frozenset[str] = frozenset(
    {"ttft", "tpot", "per_token", "prefill_throughput", "decode_throughput", "cache_bytes", "kv_bytes_per_token"}
)
"""Metrics that no encoder has."""
OF_BATCHES: frozenset[str] = frozenset(
    {"latency_ratio", "per_token", "prefill_throughput", "decode_throughput", "cache_bytes"}
    | {name for name in METRICS if name.startswith(("encode", "activation_peak.", "roofline."))}
)
"""Metrics that only a workload of fixed batches has: nobody sees the phases within a server."""


CONDITIONS: Mapping[str, Metric] = _metrics(
    Metric("speedup.low", "", True, "lower end of the interval of speedup (95 % confidence from six rounds on)"),
    Metric("speedup.high", "", True, "upper end of the interval of speedup (95 % confidence from six rounds on)"),
    Metric("speedup.error", "", False, "half the width of the interval of speedup, divided by speedup"),
    *(
        Metric(f"{name}{end}", "", better, text.format(name))
        for name in ("compression_speedup", "own_speedup", "batching_speedup", "runtime_speedup", "dense_speedup")
        for end, better, text in (
            (".low", True, "lower end of the interval of {}"),
            (".high", True, "upper end of the interval of {}"),
            (".error", False, "half the width of the interval of {0}, divided by {0}"),
        )
    ),
    Metric("dense_speedup", "", True, "speedup of the dense model with which compression_speedup compares"),
    Metric("dense_contended", "", False, "1 if the machine was busy while the dense model of dense_speedup was timed"),
    Metric("speedup.trial", "", True, "speedup that the trial itself measured, before a later timing replaced it"),
    Metric("floor", "", True, "accuracy floor against which the trial was judged"),
    Metric("chance", "", True, "accuracy that guessing would reach"),
    Metric("length_ratio", "", True, "tokens that the model wrote, divided by those of the references"),
    Metric("length_ratio.least", "", True, "least length_ratio that is feasible"),
    Metric("length_ratio.most", "", True, "largest length_ratio that is feasible"),
    Metric("examples", "", True, "number of examples that were scored"),
    Metric(
        "accuracy_replicates",
        "",
        True,
        "resamples of the examples that accuracy_stderr comes from, where the accuracy is not that of the mean example",
    ),
    Metric(
        "accuracy_interval.low",
        "",
        True,
        "lower end of the interval of the accuracy on all examples; valid whenever scoring stops",
    ),
    Metric(
        "accuracy_interval.high",
        "",
        True,
        "upper end of the interval of the accuracy on all examples; valid whenever scoring stops",
    ),
    Metric("compress_seconds", "s", False, "time in which the model was compressed, or loaded from the cache"),
    Metric("score_seconds", "s", False, "time that scoring took in this trial"),
    Metric("run_seconds", "s", False, "time that measuring speed and memory took in this trial, dense models included"),
    Metric("saved_seconds", "s", True, "time of scoring and timing that results from the cache saved"),
    Metric("rounds", "", True, "number of timed rounds that count"),
    Metric("rounds_strained", "", False, "number of rounds during which other work slowed the machine"),
    Metric("contended", "", False, "1 if disturbed rounds had to be counted, because hardly any calm round came"),
    Metric("timing_seconds", "s", False, "time that timing took, warm-up included"),
    Metric(
        "reference_latency",
        "s",
        False,
        "median time of one batch of requests in the model that was timed in turns with this one",
    ),
    Metric("drift", "", False, "reference_latency divided by its first value in this process"),
    Metric("wait", "", False, "share of the timed seconds in which our threads were ready and waited for a processor"),
    Metric(
        "probe", "s", False, "median time of a small fixed matrix product during the timing; shows the machine's speed"
    ),
    Metric("slowdown", "", False, "probe divided by its best value in the last minutes"),
    Metric("steal", "", False, "share of the machine's CPU time that its host gave to others"),
    Metric("page_faults", "1/s", False, "memory pages that the kernel had to load or clear for us, per timed second"),
    Metric("cpu_per_wall", "", True, "CPU seconds of the timed runs divided by their wall-clock seconds"),
    Metric("load", "", False, "load average of the machine over one minute"),
    Metric("temperature", "C", False, "temperature of the GPU"),
    Metric("sm_clock", "Hz", True, "clock rate of the GPU's multiprocessors"),
    Metric("throttled", "", False, "1 if the GPU lowered its clock rate because of heat or power"),
    Metric("other_processes", "", False, "number of other processes that compute on the GPU"),
)
"""The circumstances in which a trial was measured. They are shown and stored, but they are no objectives."""


def at_pace(metrics: Mapping[str, float], timing: TimingFacts | None, pace: float | None) -> dict[str, float]:
    """Return times and rates as they would be if the baseline, beside which they were taken, took ``pace`` seconds.

    Metrics that were timed beside anything else stay as they are, as do all without ``pace``.
    """
    if not pace or timing is None or not timing.is_beside_baseline or "reference_latency" not in metrics:
        return dict(metrics)
    factor = pace / metrics["reference_latency"]
    return {name: _scaled(name, value, factor) for name, value in metrics.items()}


def _scaled(name: str, value: float, factor: float) -> float:
    metric = METRICS.get(name)
    if metric is None:
        return value
    if metric.quantity == "roofline" or metric.unit.endswith("/s"):
        return value / factor
    return value * factor if metric.unit == "s" else value


def is_of_time(name: str) -> bool:
    """Return whether a metric comes from a clock."""
    return METRICS[name].quantity == "time"


def is_of_memory(name: str) -> bool:
    """Return whether a metric is of bytes: of memory, of weights, or of the bits that these take."""
    return METRICS[name].quantity == "memory"


def is_dominated(metrics: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Return whether ``other`` is at least as good as ``metrics`` in every quantity that ``other`` names."""
    return all(
        name in metrics and (metrics[name] <= value if METRICS[name].higher_is_better else metrics[name] >= value)
        for name, value in other.items()
    )
