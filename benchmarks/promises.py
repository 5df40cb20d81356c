"""What was promised of the recipes, as lines that hold or do not: asked, measured, whether."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from recipes import AGAIN, DECODER, DEPTHS

from objectives.recovery.off import Off

Line = tuple[str, str, bool]
Results = Mapping[str, Mapping[str, float]]
"""By cell; means over the seeds."""


def speed_lines(found: Results, wrong: Sequence[str]) -> Iterator[Line]:
    """Of the speed-ups over 16 bits; ``wrong``: where int4 took the slower of its paths."""
    for what, model, column, least in (
        ("50 % pruned, prefill", "prune 0.5", "prefill 1x256", 1.8),
        ("8 bits (W8A8), prefill", "8 bit", "prefill 1x256", 1.2),
        ("4 bits, decode of one request, block linears", "4 bit, clipped", "linears, 1 rows", 1.8),
    ):
        measured = found[model][column]
        yield f"speed, {what} >= {least}x", f"{measured:.2f}", measured >= least
    asked = "speed, 4 and 8 bits (weights alone): no path slower than 0.97 of 16 bits while another is faster"
    yield asked, "; ".join(wrong) or "none at 12 row counts", not wrong


def decoder_lines(found: Results) -> Iterator[Line]:
    """What was promised of SmolLM2, for each served domain."""
    for domain in ("news", "encyclopedia"):

        def gap(cell: str, domain: str = domain) -> float:
            return found[cell][domain] - found["dense"][domain]

        share = gap("prune 0.25") / gap("activation, cut only 0.25")
        yield f"{domain}: pruned 25 %, gap <= 0.60 of cutting by activation", f"{share:.2f}", share <= 0.60
        for ratio, most in ((0.1, 1.15), (0.05, 1.06)):
            times = math.exp(gap(f"prune {ratio}"))
            yield f"{domain}: pruned {ratio:.0%}, perplexity <= {most} x dense", f"{times:.3f}", times <= most
        for ratio in DEPTHS:
            if f"depth {ratio}" in found:
                share = gap(f"prune {ratio}") / gap(f"depth {ratio}")
                yield f"{domain}: pruned {ratio:.0%}, gap <= half of greedy depth's", f"{share:.2f}", share <= 0.5
        if "prune 0.25, distilled" in found:
            share = gap("prune 0.25, distilled") / gap("activation, cut only 0.25")
            yield f"{domain}: 25 % and a minute of distillation <= 0.50 of cutting", f"{share:.2f}", share <= 0.50
            times = math.exp(gap("prune 0.1, distilled"))
            yield f"{domain}: 10 % and a minute of distillation <= 1.10 x dense", f"{times:.3f}", times <= 1.10
        for ratio in (0.1, 0.25, 0.4):
            rivals = {
                name: gap(name) for name in found if name.startswith("torch-pruning") and name.endswith(f" {ratio}")
            }
            if rivals:
                best = min(rivals.values())
                ours = gap(f"prune {ratio}")
                yield (
                    f"{domain}: pruned {ratio:.0%}, better than torch-pruning",
                    f"{ours:.3f} < {best:.3f}",
                    ours < best,
                )
        closed = 1 - gap("4 bit, GPTQ") / gap("4 bit, min-max")
        yield f"{domain}: 4 bits, GPTQ closes >= 65 % of rounding to nearest", f"{closed:.0%}", closed >= 0.65
        closed = 1 - gap("4 bit, GPTQ") / gap("4 bit, clipped")
        yield f"{domain}: 4 bits, GPTQ closes >= 50 % of clipped rounding", f"{closed:.0%}", closed >= 0.50
        both = gap("prune 0.25 in 64s, 4 bit GPTQ") - gap("prune 0.25 in 64s") - gap("4 bit, GPTQ")
        yield f"{domain}: 25 % then 4 bits <= 1.06 x the product", f"{math.exp(both):.3f}", math.exp(both) <= 1.06
        if "3 bit, GPTQ" in found:
            closed = 1 - gap("3 bit, GPTQ") / gap("3 bit, min-max")
            yield f"{domain}: 3 bits, GPTQ closes >= 62 % of rounding to nearest", f"{closed:.0%}", closed >= 0.62
            for name, low, high, at in (
                ("5.0 (4, 8)", "4 bit, GPTQ", "8 bit", 0.25),
                ("3.5 (3, 4)", "3 bit, GPTQ", "4 bit, GPTQ", 0.5),
            ):
                line = (1 - at) * gap(low) + at * gap(high)
                ours = gap(f"mixed {name}")
                yield f"{domain}: mixed {name} below its neighbours' line", f"{ours:.3f} < {line:.3f}", ours < line
    own = {cell.name for cell in DECODER if isinstance(cell.recovery, Off)}
    seconds = {name: row["seconds"] for name, row in found.items() if name in own}
    slowest = max(value for name, value in seconds.items() if not name.startswith(AGAIN))
    yield "any recipe in <= 20 s with stored moments", f"{slowest:.1f} s", slowest <= 20
    for name, value in seconds.items():
        if name.startswith(AGAIN):
            yield "<= 45 s with moments taken again from the pruned model", f"{value:.1f} s", value <= 45


def encoder_lines(found: Results) -> Iterator[Line]:
    """What was promised of MiniLM."""
    for cell, least in (("prune 0.3", 0.90), ("8 bit", 0.996), ("4 bit, GPTQ", 0.98)):
        cosine = found[cell]["cosine"]
        yield f"MiniLM, {cell}: cosine >= {least}", f"{cosine:.4f}", cosine >= least
    lost = found["dense"]["accuracy"] - found["prune 0.3"]["accuracy"]
    yield "MiniLM, prune 0.3: accuracy@1 within 3 points", f"{100 * lost:+.1f} points lost", lost <= 0.03
