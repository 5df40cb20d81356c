"""The quantities that a trial may report: their names, base units, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from objectives.types import TimingFacts


@dataclass(frozen=True)
class Metric:
    """A measured quantity: its base unit, which way is better, and what it says."""

    name: str
    unit: str
    higher_is_better: bool
    meaning: str

    @property
    def column(self) -> str:
        """Return the name in tables: dots become underscores (``latency.p95`` -> ``latency_p95``)."""
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
    Metric("latency.stdev", "s", False, "one whole request batch, standard deviation"),
    Metric("encode", "s", False, "the encoder of an encoder-decoder reading the sources, median"),
    Metric("latency_ratio", "", False, "latency of a request batch over the baseline's, by their paired speed-up"),
    Metric("ttft", "s", False, "time to first token: reading the prompts, median"),
    Metric("tpot", "s", False, "time per output token after the first, median"),
    Metric("per_token", "s", False, "latency of a request batch over the tokens of one request, first included"),
    Metric("prefill_throughput", "1/s", True, "prompt tokens read per second until the first token"),
    Metric("decode_throughput", "1/s", True, "output tokens per second after the first"),
    Metric(
        "peak_memory", "B", False, "weights plus activation peak, as torch's allocator counts them; engines: resident"
    ),
    Metric("activation_peak", "B", False, "memory a request batch adds to the resting model, KV cache included"),
    Metric("activation_peak.encode", "B", False, "the same while sources are encoded"),
    Metric("activation_peak.prefill", "B", False, "the same while prompts are read"),
    Metric("activation_peak.decode", "B", False, "the same while tokens are written"),
    Metric("cache_bytes", "B", False, "keys and values that a request batch holds at its end"),
    Metric("resident_peak", "B", False, "what the kernel saw a request batch add to the process; depends on the heap"),
    Metric("reserved_peak", "B", False, "CUDA: peak that the caching allocator took from the driver"),
    Metric("process_memory", "B", False, "CUDA: what the driver charges to the process, context included"),
    Metric("predicted_peak", "B", False, "peak memory predicted from shapes before the run"),
    Metric("weight_bytes", "B", False, "all weights as stored in memory, scales and zero points counted"),
    Metric("disk_bytes", "B", False, "weights of the exported folder"),
    Metric("block_bytes", "B", False, "weights of the transformer blocks as stored in memory"),
    Metric("memory_ratio", "", False, "peak memory over the baseline's"),
    Metric("compression_speedup", "", True, "speed-up over the dense model at the same batch size"),
    Metric("batching_speedup", "", True, "what the batch size alone gives: the dense model at it over the baseline"),
    Metric("compression_memory_ratio", "", False, "peak memory over the dense model's at the same batch size"),
    Metric(
        "own_speedup",
        "",
        True,
        "speed-up over the same runtime's dense model in 32 bits (torch: 16) at the same batch size",
    ),
    Metric("runtime_speedup", "", True, "what the runtime alone gives: that dense model over the baseline"),
    Metric("runtime_bytes", "B", False, "what an engine holds at rest, with the copies that it made of its weights"),
    Metric("conversion_seconds", "s", False, "that the engine's files took to make, from the compressed model"),
    Metric("promised_speedup", "", True, "compression_speedup that bytes and FLOPs allow at the device's peaks"),
    Metric("weight_ratio", "", False, "weight bytes over the dense model's"),
    Metric("flops", "", False, "floating-point and integer operations of one request batch"),
    Metric("flops_ratio", "", False, "operations over the dense model's at the same batch size"),
    Metric("roofline.encode", "", True, "share of the device's bandwidth or compute limit, sources being encoded"),
    Metric("roofline.prefill", "", True, "share of the device's bandwidth or compute limit, prompts being read"),
    Metric("roofline.decode", "", True, "share of the device's bandwidth or compute limit, tokens being written"),
    Metric("energy", "J", False, "energy per output token or sample, where the device counts it"),
    Metric("effective_bits", "bit", False, "stored bits per block weight, scales and zero points counted"),
    Metric("pruning_ratio", "", True, "realised share of block parameters removed"),
    Metric("accuracy", "", True, "the task's score in [0, 1]"),
    Metric("accuracy_stderr", "", False, "standard error of the accuracy"),
    Metric("accuracy_difference", "", True, "accuracy minus the baseline's, on the same examples"),
    Metric("accuracy_difference.low", "", True, "lower end of its 95 % interval, examples compared in pairs"),
    Metric("accuracy_difference.high", "", True, "upper end of its 95 % interval, examples compared in pairs"),
    Metric("predicted_loss", "nat", False, "log-loss per token that the methods expect to have cost, before any run"),
    Metric("perplexity", "", False, "exp of the mean negative log-likelihood per token"),
)
"""Every metric that an objective, a table or MLflow may name."""


CONDITIONS: Mapping[str, Metric] = _metrics(
    Metric("speedup.low", "", True, "lower end of the speed-up's interval, 95 % where there are six rounds"),
    Metric("speedup.high", "", True, "upper end of that interval"),
    Metric("speedup.error", "", False, "half of that interval over the speed-up"),
    *(
        Metric(f"{name}{end}", "", better, f"{text} of {name}'s interval, from those of both speed-ups it compares")
        for name in ("compression_speedup", "own_speedup", "batching_speedup", "runtime_speedup", "dense_speedup")
        for end, better, text in ((".low", True, "lower end"), (".high", True, "upper end"), (".error", False, "half"))
    ),
    Metric("dense_speedup", "", True, "speed-up of the dense model that compression_speedup compares with"),
    Metric("dense_contended", "", False, "1 when that dense model was timed on a busy machine"),
    Metric(
        "speedup.trial", "", True, "speed-up that the trial itself measured, where another measurement confirmed it"
    ),
    Metric("floor", "", True, "accuracy floor that the verdict speaks of"),
    Metric("chance", "", True, "accuracy that guessing would reach"),
    Metric("examples", "", True, "examples that were scored"),
    Metric(
        "accuracy_interval.low", "", True, "lower end of what the accuracy on all examples may be, whenever looked at"
    ),
    Metric("accuracy_interval.high", "", True, "upper end of that"),
    Metric("compress_seconds", "s", False, "that the model took to make, or to load from the cache"),
    Metric("score_seconds", "s", False, "that scoring took now"),
    Metric("run_seconds", "s", False, "that running it took now: speed, memory, and what it is compared with"),
    Metric("saved_seconds", "s", True, "of scoring and timing that earlier work spared"),
    Metric("rounds", "", True, "timed rounds that count"),
    Metric("rounds_strained", "", False, "rounds put aside because something slowed the machine"),
    Metric("contended", "", False, "1 when strained rounds had to be counted, as hardly any other came"),
    Metric("timing_seconds", "s", False, "spent on timing, warm-up included"),
    Metric("reference_latency", "s", False, "median latency of what the trial was timed beside"),
    Metric("drift", "", False, "that latency over the first one measured in this process"),
    Metric("wait", "", False, "share of the timed seconds that our threads waited for a processor"),
    Metric("probe", "s", False, "what a small fixed product took meanwhile: the machine's pace"),
    Metric("slowdown", "", False, "that over what it took at the machine's best, of the last minutes"),
    Metric("steal", "", False, "share of the machine's time that its host took"),
    Metric("page_faults", "1/s", False, "pages per timed second that the kernel had to bring or clear for us"),
    Metric("cpu_per_wall", "", True, "CPU seconds over wall seconds of the timed runs"),
    Metric("load", "", False, "one-minute load average of the machine"),
    Metric("temperature", "C", False, "of the GPU"),
    Metric("sm_clock", "Hz", True, "of the GPU's multiprocessors"),
    Metric("throttled", "", False, "1 when the GPU lowered its clocks for heat or power"),
    Metric("other_processes", "", False, "other processes that compute on the GPU"),
)
"""The circumstances in which a trial was measured; they are shown and kept, and are no objectives."""


def at_pace(metrics: Mapping[str, float], timing: TimingFacts | None, pace: float | None) -> dict[str, float]:
    """Return times and rates as they would be if the baseline, beside which they were taken, took ``pace`` seconds.

    Metrics that were timed beside anything else stay as they are, as do all without ``pace``.
    """
    if not pace or timing is None or not timing.is_beside_baseline or "reference_latency" not in metrics:
        return dict(metrics)
    factor = pace / metrics["reference_latency"]
    return {name: _scaled(name, value, factor) for name, value in metrics.items()}


def _scaled(name: str, value: float, factor: float) -> float:
    if name.startswith("roofline."):
        return value / factor
    unit = METRICS[name].unit if name in METRICS else ""
    return value * factor if unit == "s" else value / factor if unit == "1/s" else value


def is_of_time(name: str) -> bool:
    """Return whether a metric comes from a clock."""
    is_ratio = name.endswith("speedup") or name == "latency_ratio"
    return not name.startswith("promised") and (METRICS[name].unit in ("s", "1/s") or is_ratio)


def is_of_memory(name: str) -> bool:
    """Return whether a metric is of bytes: of memory, of weights, or of the bits that these take."""
    return METRICS[name].unit in ("B", "bit") or name.endswith(("memory_ratio", "weight_ratio"))


def is_dominated(metrics: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Return whether ``other`` is at least as good as ``metrics`` in every quantity that ``other`` names."""
    return all(
        name in metrics and (metrics[name] <= value if METRICS[name].higher_is_better else metrics[name] >= value)
        for name, value in other.items()
    )
