"""ONNX Runtime GenAI as a peer: models of its builder, which Olive calls for decoders, run in a process of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from objectives.assets.environment import variables
from objectives.protocols.running import Runner
from objectives.runtime.engines.folder import Facts
from objectives.runtime.engines.foreign_engine import ForeignDecoder
from objectives.runtime.engines.runner import EngineRunner

CHILD = Path(__file__).with_name("genai_child.py").resolve()
BUILDS: dict[str, tuple[str, ...]] = {
    "8 bits": ("int8",),
    "4 bits": ("int4",),
    "4 bits, k-quant": ("int4", "algo_config=k_quant_mixed"),
}
"""The precision and the settings of the model builder, by name."""


def built(python: Path, source: Path, folder: Path, precision: str, *options: str) -> Path:
    """Let the builder in ``python`` write ``source`` in groups of 32 to ``folder``, unless it is there; return it."""
    if folder.is_dir():
        return folder
    words = ["-m", str(source), "-o", str(folder), "-p", precision, "-e", "cpu", "--extra_options"]
    words += ["accuracy_level=4", "block_size=32", *options]
    done = subprocess.run(
        [str(python), "-m", "onnxruntime_genai.models.builder", *words],
        env={**variables(), "HF_HUB_OFFLINE": "1"}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return folder


def opened(python: Path, folder: Path, tokenizer: Any, threads: int) -> EngineRunner:
    """Return a runner of a folder of the builder."""
    file = folder / "genai_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    file.write_text(json.dumps(config), encoding="utf-8")
    decoder = config["model"]["decoder"]
    per_token = 2 * 4 * decoder["num_hidden_layers"] * decoder["num_key_value_heads"] * decoder["head_size"]
    flags = {"vocabulary": config["model"]["vocab_size"], "kv_bytes_per_token": per_token}
    engine = ForeignDecoder(str(CHILD), python, folder, flags, {"OMP_NUM_THREADS": str(threads)})
    facts = Facts(
        runtime="", settings={}, options={"kv_bytes_per_token": per_token}, head="causal_lm",
        vocabulary=flags["vocabulary"], caches=(), stored={}, others=(folder / "model.onnx.data").stat().st_size,
        block_weights=1, block_bytes=0, seconds=0.0, predicted_loss=None, notes=(),
    )  # fmt: skip
    return EngineRunner(folder, facts, engine, threads, tokenizer)


def peak(runner: Runner) -> int:
    """Return the bytes of weights, and of the keys and values of 41 tokens."""
    runner.generate(torch.zeros(1, 32, dtype=torch.int64), torch.zeros(1, 9, dtype=torch.int64))
    assert isinstance(runner, EngineRunner)
    assert isinstance(runner.engine, ForeignDecoder)
    return runner.engine.weigh()[1]
