"""Writes the model card of an exported folder: what it is, how it was made, what was measured, and what loads it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from objectives.export.engines import Loads
from objectives.export.stock_check import Seen
from objectives.metrics import METRICS

CARD = "README.md"
_HALF_WIDTH = 16
"""Bits of a weight that was not rounded."""
_HALF = 1.96
"""Standard errors in half of a 95 % interval."""
_SHOWN = (
    "throughput", "speedup", "request_throughput", "goodput", "latency.p50", "latency.p95", "ttft", "ttft.p95", "tpot",
    "tpot.p95", "peak_memory", "kv_bytes_per_token", "weight_bytes", "disk_bytes",
    "memory_ratio", "accuracy", "perplexity",
)  # fmt: skip
"""The metrics of the table, where they were measured."""
_MACHINE = ("device_name", "device", "cores", "threads", "cpu_capability", "memory")


def write(
    folder: Path,
    format: str,
    facts: Mapping[str, Any],
    seen: Sequence[Seen],
    others: Sequence[Loads],
    commands: Mapping[str, str],
) -> None:
    """Write the card of a model in ``format`` into ``folder``.

    ``facts``: those of the trial, with ``machine``; ``others``: what the table of engines says of engines besides;
    ``commands``: how a user loads it, by engine.
    """
    lines = [*_head(format, facts), "", *_made(facts), "", *_measured(facts), "", *_engines(seen, others), ""]
    lines += ["## Load it", "", "In this folder:", ""]
    lines += [f"    {command}    # {engine}" for engine, command in commands.items()]
    (folder / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _head(format: str, facts: Mapping[str, Any]) -> Iterator[str]:
    base = str(facts["model"].get("path", ""))
    is_on_a_hub = base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()
    fields: dict[str, Any] = {
        **({"base_model": base} if is_on_a_hub else {}),
        "pipeline_tag": "text-generation",
        "tags": ["paretune", "pruning", "quantization", format],
    }
    name = Path(base.removeprefix("asset:")).name or "a model"
    yield "---"
    for key, value in fields.items():
        yield f"{key}: {json.dumps(value)}"  # JSON is YAML
    yield "---"
    metrics = facts["metrics"]
    is_dense = metrics.get("pruning_ratio") == 0 and metrics.get("effective_bits", 0) >= _HALF_WIDTH
    yield f"# {name}" if is_dense else f"# {name}, compressed"
    yield ""
    done = (
        f"{name} in the format `{format}`, neither pruned nor rounded below 16 bits. paretune measured it"
        if is_dense
        else f"A compressed form of {name}, in the format `{format}`. paretune pruned and rounded the model, and "
        "measured it beside the original"
    )
    yield f"{done} on one machine. The files hold the very weights that were measured."


def _made(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield f"Trial {facts['trial']} of the study `{facts['study']}`."
    yield ""
    for part, setting in facts["methods"].items():
        yield f"- {part}: `{setting.get('_target_', '').rpartition('.')[2]}`"
    for name, value in facts["settings"].items():
        yield f"- `{name}`: {_public(value)}"
    yield f"- runtime that was measured: `{facts['runtime']}`"


def _measured(facts: Mapping[str, Any]) -> Iterator[str]:
    metrics = facts["metrics"]
    yield "## What was measured"
    yield ""
    yield "| metric | value | 95 % interval | unit |"
    yield "|---|---|---|---|"
    for name in _SHOWN:
        if name in metrics and math.isfinite(metrics[name]):
            yield f"| {name} | {metrics[name]:.6g} | {_interval(name, metrics)} | {METRICS[name].unit or '-'} |"
    machine = facts.get("machine", {})
    known = ", ".join(f"{name.replace('_', ' ')} {machine[name]}" for name in _MACHINE if name in machine)
    workload = {name: value for name, value in facts["workload"].items() if name != "_target_"}
    yield ""
    yield f"Workload: {', '.join(f'{name} {_public(value)}' for name, value in workload.items() if value is not None)}."
    if known:
        yield f"Machine: {known}."
    yield "Speed and memory are those of the measured runtime; other engines and machines have others."


def _public(value: Any) -> Any:
    """Return ``value``, of a path its last part and of a URL nothing: where things lie here is nobody's business."""
    if not isinstance(value, str) or "/" not in value:
        return value
    return "a server" if "://" in value else Path(value).name


def _interval(name: str, metrics: Mapping[str, float]) -> str:
    if f"{name}_stderr" in metrics:
        return f"± {_HALF * metrics[f'{name}_stderr']:.3g}"
    if f"{name}.low" in metrics:
        return f"{metrics[f'{name}.low']:.4g} to {metrics[f'{name}.high']:.4g}"
    return "-"


def _engines(seen: Sequence[Seen], others: Sequence[Loads]) -> Iterator[str]:
    yield "## Engines"
    yield ""
    yield "Seen at the export, in a fresh process without paretune:"
    yield ""
    yield from (f"- {each.line}" for each in seen)
    if others:
        yield ""
        yield "By the table of engines, not seen with these files:"
        yield ""
        yield from (f"- {row.line}" for row in others)
