"""The page of ``benchmarks/runtimes.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

State = Mapping[str, Any]


def page(state: State, lines: Sequence[tuple[str, str, bool]]) -> str:
    """Markdown."""
    machines = {
        f"{each['device_name']}, torch {each['torch']}, one thread" for each in state.get("machines", {}).values()
    }
    parts = [
        "# Runtimes: the same models in every engine",
        "Written by `python benchmarks/runtimes.py`; all values are in runtimes.json. Speed-ups are medians of paired "
        "ratios of CPU seconds over torch bf16, all in turns, in random order; in brackets over the same runtime's own "
        f"dense fp32. {'; '.join(sorted(machines))}. All on the CPU; on a GPU: [gpu.md](gpu.md).",
        "## Asked",
        "| asked | measured | holds |\n|---|---|---|\n"
        + "\n".join(f"| {asked} | {measured} | {'yes' if ok else '**no**'} |" for asked, measured, ok in lines),
    ]
    if "decoders" in state:
        parts += [
            "## SmolLM2-135M",
            "Prefill: 128 tokens; decode: one token on a cache of 128 to 136. Next-token top-1 and perplexity on 24 "
            "XSum documents of 256 tokens, through the runtime. 8 and 4 bits: embedding and head in 8. 4 bits: GPTQ, "
            "group 64, whole zero points. MiB: weights as stored; peak: resident while it runs, in its own process "
            "(torch: what its allocator counts).",
            _table(
                state["decoders"]["rows"], ("prefill 1", "prefill 8", "decode 1", "decode 8"),
                {"accuracy": "top-1", "perplexity": "perplexity", "difference": "max difference"},
            ),
            _own(state["decoders"]),
        ]  # fmt: skip
    if "encoders" in state:
        parts += [
            "## MiniLM-L6",
            "64 tokens per text. Cosine: to torch fp32, mean over 192 texts, and the least. Accuracy: a summary finds "
            "its document among 600.",
            _table(
                state["encoders"]["rows"], ("encode 1", "encode 32"),
                {"accuracy": "accuracy", "cosine": "cosine", "least cosine": "least", "difference": "max difference"},
            ),
        ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _table(rows: Mapping[str, State], phases: Sequence[str], quality: Mapping[str, str]) -> str:
    heads = ["", *phases, *quality.values(), "MiB", "peak MiB", "conversion s"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    for name, row in rows.items():
        cells = [_speed(row, phase) for phase in phases]
        cells += ["" if key not in row else _number(key, row[key]) for key in quality]
        cells += [f"{row['weight_bytes'] / 2**20:.1f}"]
        cells += [f"{row['peak_memory'] / 2**20:.0f}" if "peak_memory" in row else ""]
        cells += [f"{row['conversion_seconds']:.0f}" if row["conversion_seconds"] else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed(row: State, phase: str) -> str:
    own = row.get(f"{phase} own")
    return f"{row[phase]:.2f}" + (f" ({own:.2f})" if own is not None else "")


def _number(key: str, value: float) -> str:
    return f"{value:.0e}" if key == "difference" else f"{value:.2f}" if key == "perplexity" else f"{value:.4f}"


def _own(state: State) -> str:
    rows, own = state["rows"], state.get("own rounding", {})
    ours = {name: rows[f"{name} 4 bits"]["perplexity"] for name in own}
    told = "; ".join(
        f"{name}: {ours[name]:.2f} with our codes, {each['perplexity']:.2f} by its own rounding"
        for name, each in own.items()
    )
    return f"Perplexity at 4 bits, group 64, in torch {rows['torch 4 bits']['perplexity']:.2f}. {told}."
