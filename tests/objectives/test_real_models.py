"""Real models keep what they know, within bands measured on one thread of an AVX2 CPU; minutes long."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from objectives.calibration import Statistics
from objectives.checkpoint import load, save
from objectives.devices.cpu import Cpu
from objectives.measuring.weighing import block_weights, weigh
from objectives.models import Checkpoint, LoadedModel
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.tasks.corpora import XSum
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.retrieval import Retrieval, embed
from objectives.types import Task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
Compress = Callable[[Structured, int], LoadedModel]
DENSE = Structured()


def compressor(checkpoint: Checkpoint, task: Task) -> Compress:
    source = checkpoint.load()
    statistics = Statistics(source, task.calibration(source))

    def compress(pruner: Structured, bits: int) -> LoadedModel:
        model = source.copy()
        pruner.prune_(model, statistics)
        RoundToNearest(bits=bits).quantize_(model, statistics, Cpu())  # type: ignore[arg-type]
        return model

    return compress


# ---- SmolLM2-135M-Instruct: GPT type

NEWS = LanguageModeling(corpus=XSum(), documents=4, tokens=256, calibration_documents=8)


@pytest.fixture(scope="module")
def smol() -> Compress:
    return compressor(Checkpoint(path="asset:smollm2-135m", head="causal_lm"), NEWS)


@pytest.fixture(scope="module")
def smol_loss(smol: Compress) -> float:
    """Nats per token of the dense model."""
    return log(NEWS.evaluate(smol(DENSE, 16)).extra["perplexity"])


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
    lost = log(NEWS.evaluate(smol(pruner, bits)).extra["perplexity"]) - smol_loss
    assert low < lost < high


def test_smollm2_cut_by_magnitude_is_destroyed(smol: Compress, smol_loss: float) -> None:
    """Why the criterion looks at activations: by weight norm alone the perplexity goes to 85,000."""
    pruner = Structured(ratio=0.1, multiple_of=64, criterion=Magnitude(), reconstruction="none")
    assert log(NEWS.evaluate(smol(pruner, 16)).extra["perplexity"]) > smol_loss + 4


def test_smollm2_comes_back_from_disk_bit_by_bit(smol: Compress, tmp_path: Path) -> None:
    model = smol(Structured(ratio=0.1, multiple_of=64), 4)
    save(model, tmp_path / "small")
    ids = torch.tensor([model.tokenizer("The capital of France is").input_ids])
    with torch.inference_mode():
        wanted, found = (one.module(input_ids=ids).logits for one in (model, load(tmp_path / "small")))
    assert torch.equal(wanted, found)


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
        return embed(model, [document.text for document in XSum().documents()[500:548]], 128)


@pytest.fixture(scope="module")
def dense_vectors(minilm: Compress) -> Tensor:
    return vectors(minilm(DENSE, 16))


@pytest.mark.parametrize(
    ("pruner", "bits", "low", "high"),
    [
        (DENSE, 8, 0.994, 0.9999),
        (DENSE, 4, 0.94, 0.98),
        (Structured(ratio=0.1), 16, 0.98, 0.995),
        (Structured(ratio=0.2), 16, 0.96, 0.985),
        (Structured(ratio=0.2), 4, 0.91, 0.96),
        (Structured(ratio=0.2, criterion=Magnitude(), reconstruction="none"), 16, 0.5, 0.85),
    ],
)
def test_minilm_keeps_the_direction_of_its_embeddings(
    minilm: Compress, dense_vectors: Tensor, pruner: Structured, bits: int, low: float, high: float
) -> None:
    cosine = (vectors(minilm(pruner, bits)) * dense_vectors).sum(dim=1).mean().item()
    assert low < cosine < high


def test_minilm_still_finds_its_documents(minilm: Compress) -> None:
    dense, small = (PAIRS.evaluate(minilm(pruner, 8)).accuracy for pruner in (DENSE, Structured(ratio=0.2)))
    assert dense > 0.85
    assert small > dense - 0.05
