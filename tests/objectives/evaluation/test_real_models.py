"""Real models keep what they know, within bands that hold on AVX2 and AVX-512 CPUs; minutes long."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.export.checkpoint import save
from objectives.models import Checkpoint, LoadedModel
from objectives.packing.weighing import block_weights, weigh
from objectives.protocols.task import Task
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.corpora import XSum
from objectives.tasks.embedding import embed
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
Compress = Callable[[Structured, int], LoadedModel]
DENSE = Structured()


def compressor(checkpoint: Checkpoint, task: Task) -> Compress:
    source = checkpoint.load()
    running = source.copy()
    Gptq().quantize_(running, Statistics(source, {}), Cpu())
    statistics = Statistics(running, task.calibration(source))

    def compress(pruner: Structured, bits: int) -> LoadedModel:
        model = source.copy()
        pruner.prune_(model, statistics)
        Gptq(bits=bits, predicts=False).quantize_(model, statistics, Cpu())  # type: ignore[arg-type]
        return model

    return compress


def in_a_fresh_process(folder: Path, answer: str, text: str) -> Tensor:
    """What ``answer``, a function of this module, makes of ``text`` with the model that ``folder`` holds."""
    code = (
        "import sys, torch, objectives\n"
        "from tests.objectives.evaluation import test_real_models as here\n"
        "torch.set_num_threads(int(sys.argv[4]))\n"
        "torch.save(getattr(here, sys.argv[2])(objectives.load(sys.argv[1]), sys.argv[3]), sys.argv[1] + '.out')\n"
    )
    command = [sys.executable, "-c", code, str(folder), answer, text, str(torch.get_num_threads())]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True)
    found: Tensor = torch.load(f"{folder}.out")
    return found


@torch.inference_mode()
def logits(model: LoadedModel, text: str) -> Tensor:
    return model.module(input_ids=torch.tensor([model.tokenizer(text).input_ids])).logits


@torch.inference_mode()
def continuation(model: LoadedModel, text: str) -> Tensor:
    ids = torch.tensor([model.tokenizer(text).input_ids])
    return model.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)


@torch.inference_mode()
def embedding(model: LoadedModel, text: str) -> Tensor:
    return embed(TorchRunner(model) if isinstance(model, LoadedModel) else model, [text], 128)


# ---- SmolLM2-135M-Instruct: GPT type

NEWS = LanguageModeling(corpus=XSum(), documents=4, tokens=256, calibration_documents=8)


@pytest.fixture(scope="module")
def smol() -> Compress:
    return compressor(Checkpoint(path="asset:smollm2-135m", head="causal_lm"), NEWS)


@pytest.fixture(scope="module")
def smol_loss(smol: Compress) -> float:
    """Nats per token of the dense model."""
    return log(NEWS.evaluate(TorchRunner(smol(DENSE, 16))).extra["perplexity"])


@pytest.mark.parametrize(
    ("pruner", "bits", "low", "high"),
    [
        (DENSE, 8, -0.01, 0.06),
        (DENSE, 4, 0.05, 0.30),
        (Structured(ratio=0.1, multiple_of=64), 16, 0.05, 0.40),
        (Structured(ratio=0.2, multiple_of=64), 16, 0.40, 1.00),
        (Structured(ratio=0.1, multiple_of=64), 4, 0.20, 0.65),
    ],
)
def test_smollm2_loses_no_more_nats_than_measured(
    smol: Compress, smol_loss: float, pruner: Structured, bits: int, low: float, high: float
) -> None:
    lost = log(NEWS.evaluate(TorchRunner(smol(pruner, bits))).extra["perplexity"]) - smol_loss
    assert low < lost < high


def test_smollm2_cut_by_magnitude_is_destroyed(smol: Compress, smol_loss: float) -> None:
    """Why the criterion looks at activations: by weight norm alone the perplexity goes to 85,000."""
    pruner = Structured(ratio=0.1, multiple_of=64, criterion=Magnitude(), reconstruction="none")
    assert log(NEWS.evaluate(TorchRunner(smol(pruner, 16))).extra["perplexity"]) > smol_loss + 4


@pytest.mark.parametrize(("ratio", "bits"), [(0.25, 16), (0.1, 8), (0.1, 4)])
def test_smollm2_comes_back_in_a_fresh_process_bit_by_bit(
    smol: Compress, tmp_path: Path, ratio: float, bits: int
) -> None:
    model = smol(Structured(ratio=ratio, multiple_of=64), bits)
    save(model, tmp_path / "small")
    text = "The capital of France is"
    for answer in (logits, continuation):
        assert torch.equal(in_a_fresh_process(tmp_path / "small", answer.__name__, text), answer(model, text))


@pytest.mark.parametrize("bits", [16, 8])
def test_smollm2_still_knows_the_capital_of_france(smol: Compress, bits: int) -> None:
    model = smol(DENSE, bits)
    ids = torch.tensor([model.tokenizer("The capital of France is").input_ids])
    assert model.tokenizer.decode(model.module(input_ids=ids).logits[0, -1].argmax()) == " Paris"


def test_smollm2_in_4_bits_stores_4_and_a_half_bits_per_weight(smol: Compress) -> None:
    dense = smol(DENSE, 16)
    metrics = weigh(smol(DENSE, 4), block_weights(dense))
    assert metrics["effective_bits"] == 4.5
    assert metrics["block_bytes"] < 0.29 * weigh(dense, block_weights(dense))["block_bytes"]


# ---- all-MiniLM-L6-v2: BERT type

PAIRS = Retrieval(corpus=XSum(), pool=150, tokens=128, calibration_pairs=64)


@pytest.fixture(scope="module")
def minilm() -> Compress:
    return compressor(Checkpoint(path="asset:minilm-l6", head="encoder"), PAIRS)


def vectors(model: LoadedModel) -> Tensor:
    """Of 48 documents that calibration did not see."""
    with torch.inference_mode():
        return embed(TorchRunner(model), [document.text for document in XSum().documents()[500:548]], 128)


@pytest.fixture(scope="module")
def dense_vectors(minilm: Compress) -> Tensor:
    return vectors(minilm(DENSE, 16))


@pytest.mark.parametrize(
    ("pruner", "bits", "low", "high"),
    [
        (DENSE, 8, 0.994, 0.9999),
        (DENSE, 4, 0.98, 0.992),
        (Structured(ratio=0.1), 16, 0.98, 0.995),
        (Structured(ratio=0.2), 16, 0.96, 0.985),
        (Structured(ratio=0.2), 4, 0.94, 0.98),
        (Structured(ratio=0.2, criterion=Magnitude(), reconstruction="none"), 16, 0.5, 0.85),
    ],
)
def test_minilm_keeps_the_direction_of_its_embeddings(
    minilm: Compress, dense_vectors: Tensor, pruner: Structured, bits: int, low: float, high: float
) -> None:
    cosine = (vectors(minilm(pruner, bits)) * dense_vectors).sum(dim=1).mean().item()
    assert low < cosine < high


def test_minilm_still_finds_its_documents(minilm: Compress) -> None:
    models = [TorchRunner(minilm(pruner, 8)) for pruner in (DENSE, Structured(ratio=0.2))]
    dense, small = (PAIRS.evaluate(model).accuracy for model in models)
    assert dense > 0.85
    assert small > dense - 0.05


@pytest.mark.parametrize(("ratio", "bits"), [(0.3, 16), (0.2, 8), (0.2, 4)])
def test_minilm_comes_back_in_a_fresh_process_bit_by_bit(
    minilm: Compress, tmp_path: Path, ratio: float, bits: int
) -> None:
    model = minilm(Structured(ratio=ratio), bits)
    save(model, tmp_path / "small")
    found = in_a_fresh_process(tmp_path / "small", "embedding", "a night train crosses the border")
    assert torch.equal(found, embedding(model, "a night train crosses the border"))
