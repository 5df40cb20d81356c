"""What every head of an encoder promises: compressed, run by engines that take encoders, exported and read back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from objectives import load
from objectives.calibration.gradients import backpropagate
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError
from objectives.export import checkpoint
from objectives.models import Checkpoint, LoadedModel
from objectives.models.batch import Batch
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import ENCODERS
from tests.objectives.recipes import built
from tests.objectives.runtimes import ENGINES, Hand, candidate, compressed, rounded

Tiny = Callable[[str], LoadedModel]

HEADS = sorted(ENCODERS - {"encoder"})
FAMILIES = [*(f"bert, {head}" for head in HEADS), "distilbert, classifier", "modernbert, classifier"]
IDS = torch.randint(2, 90, (2, 18), generator=torch.Generator().manual_seed(5))
MASK = torch.tensor([[1] * 18, [1] * 16 + [0] * 2])
TYPES = torch.tensor([[0] * 9 + [1] * 9] * 2)


def takes_heads(name: str) -> bool:
    runtime = built("runtime", name)
    workload = built("workload", "encoding")
    return runtime.supports(candidate(rounded(32), runtime, workload), "classifier", Cpu()) is None


TAKERS = [name for name in ENGINES if takes_heads(name)]
SHOWN = {("openvino", "classifier"), ("onnxruntime", "token_classifier"), ("openvino", "question_answering")}
"""Each head once; all pairs are slow."""
each_pair = pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param(name, head, marks=[] if (name, head) in SHOWN else [pytest.mark.slow])
     for name in TAKERS for head in HEADS],
)  # fmt: skip


def shape_of(head: str) -> tuple[int, ...]:
    return {"classifier": (2, 3), "token_classifier": (2, 18, 5), "question_answering": (2, 18, 2)}[head]


@pytest.mark.parametrize("head", HEADS)
def test_the_answer_is_the_heads_own(tiny: Tiny, head: str) -> None:
    model = tiny(f"bert, {head}")
    with torch.inference_mode():
        answer = TorchRunner(model).encode(IDS, MASK, TYPES)
        output = model.module(input_ids=IDS, attention_mask=MASK, token_type_ids=TYPES)
    assert answer.shape == shape_of(head)
    assert torch.equal(
        answer.flatten()[:1], (output.start_logits if head == "question_answering" else output.logits).flatten()[:1]
    )
    assert len(TorchRunner(model).labels) == {"classifier": 3, "token_classifier": 5}.get(head, 0)


@each_pair
def test_an_engine_answers_as_torch_does_with_types_and_padding(
    tiny: Tiny, tmp_path: Path, name: str, head: str
) -> None:
    source = tiny(f"bert, {head}")
    quantizer, runtime = rounded(32), built("runtime", name)
    model = compressed(source, Statistics(source, {"random": [IDS]}), quantizer, 0.3)
    runner = runtime.prepare(Hand(model, quantizer, tmp_path, {"random": [Batch(IDS, TYPES)]}))
    assert isinstance(runner, EngineRunner)
    served = EngineRunner.open(runner.folder, None, 1)
    with torch.inference_mode():
        for asked in (runner, served):
            found, wanted = asked.encode(IDS, MASK, TYPES), TorchRunner(model).encode(IDS, MASK, TYPES)
            assert found.shape == shape_of(head)
            assert float((found - wanted)[:, :16].abs().max()) < 1e-4
        bare = TorchRunner(model).encode(IDS)
        assert float((runner.encode(IDS) - bare).abs().max()) < 1e-4
        assert float((bare - TorchRunner(model).encode(IDS, None, TYPES)).abs().max()) > 1e-4
    assert served.labels == TorchRunner(model).labels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compressed_model_is_written_and_read_with_its_head(tiny: Tiny, tmp_path: Path, family: str) -> None:
    source = tiny(family)
    batch = Batch(IDS, TYPES if family.startswith("bert") else None)
    model = compressed(source, Statistics(source, {"random": [batch]}), rounded(4), 0.3)
    checkpoint.save(model, tmp_path / "folder")
    again = load(tmp_path / "folder")
    assert again.head == source.head
    assert again.labels == source.labels
    with torch.inference_mode():
        assert torch.equal(again.encode(IDS, MASK), TorchRunner(model).encode(IDS, MASK))


def test_a_pruner_loses_less_of_the_heads_answer_where_it_knows_the_head(tiny: Tiny) -> None:
    """A unit that the head does not read may go first."""
    source = tiny("bert, classifier").copy()
    block = list(source.blocks())[-1]
    gradients = Statistics(source, {"random": [Batch(IDS, TYPES)]}).gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
    with torch.inference_mode():
        source.module.classifier.weight.zero_()
    blind = Statistics(source, {"random": [Batch(IDS, TYPES)]}).gradients
    assert any(bool(gradient.any()) for key, gradient in gradients.items() if key[0] == block.name)
    assert not any(bool(gradient.any()) for gradient in blind.values())


@pytest.mark.parametrize("head", HEADS)
def test_the_signal_has_the_fisher_matrix_for_its_second_moment(tiny: Tiny, head: str) -> None:
    """Over many draws of signs, against the sum over classes of p g g^T; at the output of the last block's FFN."""
    model = tiny(f"bert, {head}")
    scored = None if head == "classifier" else IDS[:1] > 40
    batch = Batch(IDS[:1], TYPES[:1], scored=scored)
    linear = list(model.blocks())[-1].linear(list(model.blocks())[-1].units[-1].consumer)
    seen: list[torch.Tensor] = []

    def watch(_module: object, _inputs: object, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.append(gradient.detach().float()[0]))  # type: ignore[no-untyped-call]

    handle = linear.register_forward_hook(watch)
    try:
        backpropagate(model, [batch] * 300)
        drawn = sum(torch.outer(one.sum(0), one.sum(0)) for one in seen) / len(seen)
        seen.clear()
        exact = exact_fisher(model, batch, linear)
    finally:
        handle.remove()
    assert float((drawn - exact).norm() / exact.norm()) < 0.35


def exact_fisher(model: LoadedModel, batch: Batch, linear: torch.nn.Module) -> torch.Tensor:
    """The sum over answers and classes of p g g^T, g summed over the tokens of the text."""
    from objectives.calibration.divergence import logits_of

    held: list[torch.Tensor] = []
    handle = linear.register_forward_hook(lambda _module, _inputs, output: held.append(output))
    begin = model.block(f"{model.family.stacks[0].layers}.0").module.register_forward_pre_hook(
        lambda _module, inputs: (inputs[0].detach().requires_grad_(), *inputs[1:])
    )
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logs = logits_of(model, batch).float().log_softmax(dim=-1)
            total = torch.zeros(())
            for answer in logs:
                for log in answer[answer.isfinite()]:
                    (gradient,) = torch.autograd.grad(log, held[0], retain_graph=True)
                    summed = gradient.float()[0].sum(0)
                    total = total + log.detach().exp() * torch.outer(summed, summed)
    finally:
        handle.remove()
        begin.remove()
    return total


@pytest.mark.parametrize(
    ("architecture", "head", "words"),
    [
        ("BertForMaskedLM", "classifier", r"BertForMaskedLM.*its head for classifier is not trained; model=encoder"),
        ("BertForTokenClassification", "classifier", "model=token_classifier"),
        ("BertForSequenceClassification", "question_answering", "model=classifier"),
    ],
)
def test_a_head_that_was_never_trained_is_refused_before_a_weight_is_read(
    tiny_folder: Callable[[str], Path], tmp_path: Path, architecture: str, head: str, words: str
) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_folder("bert"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
    with pytest.raises(ModelError, match=re.compile(words)):
        Checkpoint(path=str(folder), head=head).inspect()  # type: ignore[arg-type]


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_with_a_head_is_loaded_with_every_weight(
    tiny_folder: Callable[[str], Path], tiny: Tiny, head: str
) -> None:
    loaded = Checkpoint(path=str(tiny_folder(f"bert, {head}")), head=head).load()  # type: ignore[arg-type]
    with torch.inference_mode():
        assert torch.equal(TorchRunner(loaded).encode(IDS), TorchRunner(tiny(f"bert, {head}")).encode(IDS))
