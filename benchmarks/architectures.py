"""Which architectures are pruned, quantised, exported and run by which engine: tiny random models, every cell tried.

``python benchmarks/architectures.py`` writes docs/benchmarks/architectures.md, in about 20 quiet minutes. One child
process does the work and tells every cell as it is done; where an engine ends it, or a cell takes longer than
``LIMIT``, that cell says so and a new child goes on with the next. ``--only NAME`` tries one model, ``--no-runtimes``
leaves the engines out; ``--state FILE`` keeps what was told, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path = [str(ROOT), *sys.path[1:]]  # this file is no package of ours, the tests' tiny models are

from objectives.models.families import described, refusal  # noqa: E402
from objectives.types import ENCODERS  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks" / "architectures.md"
LIMIT = 180.0
"""Seconds that one cell may take."""
TORCH = ("load", "width", "depth", "8 bits", "4 bits", "export")
ENGINES = ("ctranslate2", "openvino", "onnxruntime", "litert")
"""The quickest first: of a run that is stopped, what was told stays."""
TOLERANCE = 1e-3

_C = {
    "vocab_size": 128,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_P = {**_C, "num_hidden_layers": 2, "intermediate_size": 128, "max_position_embeddings": 128}
_EXPERTS = {"num_key_value_heads": 2, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "glm": ("causal_lm", {**_P, "num_key_value_heads": 2, "head_dim": 16}),
    "exaone4": ("causal_lm", {**_P, "num_key_value_heads": 2}),
    "persimmon": ("causal_lm", _P),
    "codegen": ("causal_lm", {**_C, "n_layer": 2, "n_head": 4, "n_embd": 64, "n_inner": 128, "rotary_dim": 8}),
    "xglm": ("causal_lm", {**_C, "d_model": 64, "num_layers": 2, "attention_heads": 4, "ffn_dim": 128}),
    "biogpt": ("causal_lm", _P),
    "rembert": ("encoder", {**_P, "input_embedding_size": 32, "output_embedding_size": 32}),
    "megatron-bert": ("encoder", _P),
    "roformer": ("encoder", {**_P, "embedding_size": 64}),
    "deberta": ("encoder", {**_P, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "gpt_oss": ("causal_lm", {**_P, **_EXPERTS, "head_dim": 16, "rope_parameters": None}),
    "granitemoe": ("causal_lm", {**_P, **_EXPERTS}),
    "hunyuan_v1_moe": ("causal_lm", {**_P, **_EXPERTS, "head_dim": 16}),
    "llama4_text": ("causal_lm", {**_P, **_EXPERTS, "head_dim": 16, "intermediate_size_mlp": 128}),
}
"""Types that no row describes: head, sizes."""
REFUSED = ("jamba", "lfm2", "mamba", "mamba2", "qwen3_next", "recurrent_gemma", "rwkv")

Cells = dict[str, str]


# ---- in the child: one model, cell by cell


def cells(name: str, folder: Path, wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(cell, what it says) of one model; cells that others need are made anew where they were told already."""
    import torch

    from objectives.errors import ObjectiveError
    from objectives.models import Checkpoint
    from tests.conftest import _tokenizer, _transformer, head_of

    torch.set_num_threads(1)
    head = OTHERS[name][0] if name in OTHERS else head_of(name)
    path = folder / name.replace(" ", "_")
    module = _other(name) if name in OTHERS else _transformer(name)
    module.save_pretrained(path)
    _tokenizer().save_pretrained(path)
    source = Checkpoint(path=str(path), head=head).load()
    trial = _Trial(source, path)
    lost = trial.lost()
    for cell in wanted:
        yield cell, ""  # begun
        try:
            said = lost or ("yes" if cell == "load" else trial.cell(cell))
        except ObjectiveError as error:
            said = f"refused: {error}"
        yield cell, said.splitlines()[0]


def _other(name: str) -> Any:
    import torch
    from transformers import AutoConfig

    from objectives.models import auto_class

    torch.manual_seed(0)
    head, sizes = OTHERS[name]
    module = auto_class(head).from_config(AutoConfig.for_model(name, **sizes))  # type: ignore[arg-type]
    return module.to(torch.bfloat16).eval()


class _Trial:
    """What is done with one model."""

    def __init__(self, source: Any, folder: Path) -> None:
        import torch

        from objectives.calibration.statistics import Statistics

        self.source, self.folder = source, folder
        generator = torch.Generator().manual_seed(2)
        self.statistics = Statistics(source, {"random": [torch.randint(2, 100, (8, 32), generator=generator)]})
        self.ids = torch.randint(2, 100, (2, 9), generator=generator)

    def lost(self) -> str:
        """Why nothing can be done with it, where transformers' own forward pass fails in 16 bits."""
        try:
            self._answer(self.source)
        except RuntimeError as error:
            return f"refused: transformers' own forward pass fails in bfloat16: {error}"
        return ""

    def cell(self, name: str) -> str:
        """What a cell of that name says. Raises ObjectiveError for what is refused."""
        made = {"width": self._width, "depth": self._depth, "export": self._export}
        if name in made:
            return made[name]()
        return self._bits(int(name[0])) if name in TORCH else self._engine(name)

    def _pruned(self, depth: bool = False) -> Any:
        from objectives.pruning.depth import Depth
        from objectives.pruning.structured import Structured

        model = self.source.copy()
        if self.source.row is not None:
            return model
        pruner = Depth(ratio=0.3) if depth else Structured(ratio=0.25, multiple_of=8)
        pruner.prune_(model, self.statistics)
        if depth and not model.layers:  # a single block: says that it stays
            Depth(ratio=0.6).prune_(model, self.statistics)
        return model

    def _width(self) -> str:
        model = self._pruned()
        if model.row is not None:
            return "not described: never pruned"
        dense, left = (sum(block.parameters for block in each.blocks()) for each in (self.source, model))
        assert self._answer(model).isfinite().all()
        return f"{1 - left / dense:.0%}, {len(set(model.widths.values()))} widths"

    def _depth(self) -> str:
        model = self._pruned(depth=True)
        if model.row is not None:
            return "not described: never pruned"
        assert self._answer(model).isfinite().all()
        return (
            f"{len(list(self.source.blocks())) - len(list(model.blocks()))} of {len(list(self.source.blocks()))} blocks"
        )

    def _stored(self, bits: int, depth: bool = False) -> Any:
        from objectives.devices.cpu import Cpu
        from objectives.quantization.gptq import Gptq
        from objectives.quantization.round_to_nearest import RoundToNearest

        model = self._pruned(depth)
        quantizer: Any = Gptq(bits=bits) if bits < 16 else RoundToNearest(bits=16)
        quantizer.quantize_(model, self.statistics, Cpu(threads=1))
        return model

    def _bits(self, bits: int) -> str:
        wide, narrow = self._answer(self._stored(16)).float(), self._answer(self._stored(bits)).float()
        assert narrow.isfinite().all()
        return f"{float((narrow - wide).norm() / wide.norm()):.1%} off"

    def _export(self) -> str:
        from objectives.export import checkpoint

        tried = 0
        for bits in (16, 8, 4):
            for depth in (False, True) if self.source.row is None else (False,):
                try:
                    model = self._stored(bits, depth)
                except Exception as error:
                    if depth and type(error).__name__ == "Unsupported":
                        continue  # no block may go: the cell of depth says why
                    raise
                with TemporaryDirectory() as folder:
                    checkpoint.save(model, Path(folder) / "saved")
                    again = checkpoint.load(Path(folder) / "saved")
                if not self._answer(model).equal(self._answer(again)):
                    return f"NO: {bits} bits, {'depth' if depth else 'width'}: another answer after loading"
                tried += 1
        return f"bit-equal, {tried} forms"

    def _engine(self, name: str) -> str:
        from objectives.devices.cpu import Cpu
        from objectives.runtime.engines.runner import EngineRunner
        from objectives.runtime.in_torch.runner import TorchRunner
        from objectives.runtime.openvino import OpenVino
        from tests.contracts.test_runtimes import WORKLOADS
        from tests.objectives.recipes import built
        from tests.objectives.runtimes import Hand, candidate, compressed, rounded

        runtime: Any = OpenVino(precision="f32") if name == "openvino" else built("runtime", name)
        missing = runtime.requirements()
        ratio = 0.25 if self.source.row is None and name != "ctranslate2" else 0.0
        quantizer = rounded(32)
        workload = WORKLOADS["encoder" if self.source.head in ENCODERS else self.source.head]
        asked = candidate(quantizer, runtime, workload, ratio)
        reason = missing or runtime.supports(asked, self.source.head, Cpu())
        if reason is not None:
            return f"refused: {reason}"
        model = compressed(self.source, self.statistics, quantizer, ratio)
        with TemporaryDirectory() as base:
            runner = runtime.prepare(Hand(model, quantizer, Path(base), self.statistics.domains))
            assert isinstance(runner, EngineRunner)
            with_torch, found = self._told(TorchRunner(model)), self._told(runner)
        far = float((found - with_torch).abs().max())
        return f"{far:.0e}" if far <= TOLERANCE else f"NO: {far:.0e} from torch"

    def _told(self, runner: Any) -> Any:
        import torch

        with torch.inference_mode():
            found = runner.encode(self.ids) if self.source.head in ENCODERS else runner.logits(self.ids)
        return found.float()

    def _answer(self, model: Any) -> Any:
        import torch

        from objectives.models.heads import encoded

        with torch.inference_mode():
            output = model.module(**model.inputs(self.ids))
        return encoded(model.head, output) if model.head in ENCODERS else output.logits


def child() -> None:
    """Do what the parent asks for on stdin, a line a cell on stdout."""
    todo = json.loads(sys.stdin.readline())
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines print
    with TemporaryDirectory() as folder:
        for name, wanted in todo:
            cell = wanted[0]
            try:
                for cell, said in cells(name, Path(folder), wanted):
                    print(json.dumps([name, cell, said]), file=told, flush=True)
            except Exception as error:  # a table has no silent cell
                first = (str(error).strip().splitlines() or [""])[0]
                print(json.dumps([name, cell, f"NO: {type(error).__name__}: {first}"]), file=told, flush=True)
                print(json.dumps([name, None, ""]), file=told, flush=True)


# ---- in the parent


def measure(found: dict[str, Cells], wanted: Sequence[str], keep: Callable[[], None]) -> None:
    """Add to ``found``, by model, what every cell says that it lacks; ``keep`` is called after each."""
    while todo := [(name, left) for name, row in found.items() if (left := [c for c in wanted if c not in row])]:
        _one_child(todo, found, keep)
        keep()


def _one_child(todo: Sequence[tuple[str, Sequence[str]]], found: dict[str, Cells], keep: Callable[[], None]) -> None:
    """Let a child do what it can; what it was doing when it died or slept is noted."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
    process.stdin.write(json.dumps(todo) + "\n")
    process.stdin.flush()
    name, cell = todo[0][0], todo[0][1][0]
    while True:
        try:
            line = lines.get(timeout=LIMIT)
        except queue.Empty:
            process.kill()
            found[name].setdefault(cell, f"NO: took more than {LIMIT:.0f} s")
            return
        if not line:
            break
        name, told, said = json.loads(line)
        if told is None:  # a model that ended in an error: the rest is tried by the next child
            process.kill()
            break
        cell = told
        if said:
            found[name][cell] = said
            print(f"{name}: {cell}: {said}", flush=True)
            keep()
    process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        found[name].setdefault(cell, f"NO: the process ended with {process.returncode}")


def _forward(stream: Iterable[str], lines: queue.Queue[str]) -> None:
    """What the child says, line by line, and an empty line when it is done."""
    for line in stream:
        lines.put(line)
    lines.put("")


def fully(name: str, row: Mapping[str, str]) -> bool:
    """Whether a model is pruned, stored in 8 and 4 bits and exported, and one engine runs it or says why not."""
    torch_ = [row[cell] for cell in ("load", "width", "8 bits", "4 bits", "export")]
    if any(said.startswith(("NO", "refused")) for said in torch_) or "not described" in row["width"]:
        return False
    engines = [row[cell] for cell in ENGINES if cell in row]
    return not any(said.startswith("NO") for said in engines) or any(said[0].isdigit() for said in engines)


def page(found: Mapping[str, Cells], wanted: Sequence[str]) -> str:
    """Markdown."""
    ours = [name for name in found if name not in OTHERS]
    types = {name for name in ours if described(name)}
    whole = [name for name in ours if fully(name, found[name])]
    silent = sum(not row.get(cell) for row in found.values() for cell in wanted)
    wrong = sum(said.startswith("NO") for row in found.values() for said in row.values())
    lines = [
        "# Architectures",
        "",
        "Written by `python benchmarks/architectures.py` on tiny random models "
        "(a name after a comma: a switch of the config). Width: 25 % of the block weights are asked for by K-FAC, "
        "unevenly; what went, and how many different widths units have. Depth: blocks that went. 8 and 4 bits: GPTQ on "
        "the pruned model, how far its answer is from that in 16 bits (of random weights: no measure of quality). "
        "Export: saved and loaded, width and depth in 16, 8 and 4 bits. Engines: the pruned model in fp32 "
        "(CTranslate2: the dense one), the largest difference from torch, at most "
        f"{TOLERANCE:g}. NO: a fault; refused: a reason; not run: the run was stopped.",
        "",
        "| asked | measured | holds |",
        "|---|---|---|",
        f"| at least 40 model types tried | {len(types) + len(OTHERS) + len(REFUSED)} types, {len(found)} models | "
        f"{_holds(len(types) + len(OTHERS) + len(REFUSED) >= 40)} |",
        f"| at least 30 fully | {len([name for name in whole if described(name)])} types, {len(whole)} models | "
        f"{_holds(len([name for name in whole if described(name)]) >= 30)} |",
        f"| none silent | {silent} empty cells, {wrong} faults | {_holds(not silent)} |",
        "",
        f"| model | fully | {' | '.join(wanted)} |",
        f"|---|---|{'---|' * len(wanted)}",
    ]
    for name, row in found.items():
        mark = "yes" if name in whole else "not described" if name in OTHERS else "no"
        lines.append(f"| {name} | {mark} | {' | '.join(_plain(row.get(cell, 'not run')) for cell in wanted)} |")
    lines += ["", "## Not taken", "", "| type | why |", "|---|---|"]
    lines += [f"| {name} | {refusal(name)} |" for name in REFUSED]
    return "\n".join(lines) + "\n"


def _holds(ok: bool) -> str:
    return "yes" if ok else "**no**"


def _plain(said: str) -> str:
    return said.partition(" (supported")[0].replace("|", "/").replace(str(ROOT), ".")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--no-runtimes", action="store_true")
    parser.add_argument("--state", type=Path, metavar="FILE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return
    from tests.conftest import SIZES, VARIANTS

    known = [*sorted(SIZES), *VARIANTS, *OTHERS]
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        parser.error(f"--only: one of {', '.join(known)} expected, got {unknown[0]}")
    wanted = (*TORCH, *(() if options.no_runtimes else ENGINES))
    stored = json.loads(options.state.read_text()) if options.state and options.state.is_file() else {}
    found = {name: stored.get(name, {}) for name in options.only or known}

    def keep() -> None:
        if options.state:
            options.state.write_text(json.dumps({**stored, **found}, indent=1))

    for engine in range(len(TORCH), len(wanted) + 1):
        measure(found, wanted[:engine], keep)
    if not options.only and not options.no_runtimes:
        PAGE.write_text(page(found, wanted))


if __name__ == "__main__":
    main()
