"""What every runtime promises: torch's answers in fp32 whatever the widths, our codes below, and a reason for what it
refuses.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import load
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.devices.stopwatch import WallStopwatch
from objectives.errors import ModelError, Unsupported
from objectives.export import winner
from objectives.measuring.interleaved import summarise
from objectives.models import LoadedModel
from objectives.protocols.candidate import Runtime
from objectives.protocols.encoder_decoder import Opening
from objectives.protocols.running import Runner
from objectives.pruning.wanda import Wanda
from objectives.quantization.awq import Awq
from objectives.quantization.gptq import Gptq
from objectives.runtime import packages
from objectives.runtime.engines.folder import FACTS, read_facts
from objectives.runtime.engines.guard import Guard
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.engines.signal_stack import signal_stack
from objectives.runtime.engines.weights import Rounded, matrices
from objectives.runtime.in_torch.prompt_lookup import PromptLookupRunner, guess
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.litert import LiteRt
from objectives.runtime.onnxruntime import OnnxRuntime
from objectives.runtime.openvino import OpenVino
from objectives.runtime.torch import Torch
from objectives.runtime.torch_compile import TorchCompile
from objectives.tasks.beams import BeamSearch
from objectives.tasks.decoding import Ends, Write, greedy
from objectives.types import Head, Timing
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from objectives.workloads.prompts import prompts
from objectives.workloads.translation import Translation
from tests.conftest import head_of
from tests.objectives.recipes import built
from tests.objectives.runtimes import ENGINES, RUNTIMES, Hand, candidate, compressed, each_runtime, heads, rounded

Tiny = Callable[[str], LoadedModel]
Prepare = Callable[..., tuple[Runner, TorchRunner]]

WORKLOADS: dict[Head, Any] = {
    "causal_lm": Generation(batch_size=2, prompt_tokens=6, new_tokens=4),
    "encoder": Encoding(batch_size=2, tokens=18),
    "seq2seq": Translation(source_tokens=6, new_tokens=2),
}
FAMILY: dict[Head, str] = {"causal_lm": "llama", "encoder": "bert", "seq2seq": "t5"}
WIDE = rounded(32)
IDS = torch.randint(2, 128, (2, 18), generator=torch.Generator().manual_seed(5))
MASK = torch.tensor([[1] * 18, [0] * 2 + [1] * 16])
"""Padded on the left, as decoders are; 16 tokens are what the first file of LiteRT holds: each more takes seconds."""

CASES = [(name, head) for name in ENGINES for head in heads(built("runtime", name), WORKLOADS, WIDE)]
DECODING = [name for name, head in CASES if head == "causal_lm"]
TRANSLATING = [
    pytest.param(name, marks=[] if name == "openvino" else [pytest.mark.slow])
    for name, head in CASES
    if head == "seq2seq"
]
"""Engines of encoder-decoders; to convert one takes many seconds, so one of them is quick."""
SLOW = (("onnxruntime", "seq2seq"), ("litert", "encoder"))
"""Of rounded models: 6 to 9 s each."""
PRUNED = 0.3
each_engine = pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param(name, head, marks=[pytest.mark.slow] if (name, head) == ("onnxruntime", "seq2seq") else [])
     for name, head in CASES],
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where graphs are kept for all tests of this file."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def prepare(tiny: Tiny, statistics: Callable[[str], Statistics], folder: Path) -> Prepare:
    """The runner of a tiny model in a runtime, and torch's own of the model that it was made of.

    Pruned unevenly where the runtime takes such models: a conversion takes seconds, and this one serves all tests.
    """

    def prepared(family: str, runtime: Any, quantizer: Any, ratio: float = PRUNED) -> tuple[Runner, TorchRunner]:
        head = head_of(family)
        if runtime.supports(candidate(quantizer, runtime, WORKLOADS[head], ratio), head, Cpu()) is not None:
            ratio = 0.0
        return made(family, runtime, quantizer, ratio)

    @cache
    def made(family: str, runtime: Any, quantizer: Any, ratio: float) -> tuple[Runner, TorchRunner]:
        stored = runtime.storage(quantizer)
        source = eloquent(tiny(family)) if head_of(family) == "seq2seq" else tiny(family)
        model = compressed(source, statistics(family), stored, ratio)
        ids = torch.randint(2, 128, (24, 12), generator=torch.Generator().manual_seed(3))
        return runtime.prepare(Hand(model, quantizer, folder, {"random": [ids]})), TorchRunner(model)

    return prepared


@torch.inference_mode()
def answer(runner: Runner, ids: torch.Tensor = IDS) -> torch.Tensor:
    return (runner.encode(ids) if runner.head == "encoder" else runner.logits(ids)).float()


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@torch.inference_mode()
def written(runner: Runner, count: int = 6, mask: torch.Tensor | None = None) -> list[list[int]]:
    out = IDS.new_empty(len(IDS), count)
    runner.generate(IDS, out, mask)
    return out.tolist()


def eloquent(model: LoadedModel) -> LoadedModel:
    """A copy that heeds what it reads and repeats itself rarely."""
    copy = model.copy()
    copy.module.get_input_embeddings().weight.mul_(12)
    head = torch.randn(copy.module.lm_head.weight.shape, generator=torch.Generator().manual_seed(5)) / 4
    copy.module.lm_head.weight = torch.nn.Parameter(head.bfloat16(), requires_grad=False)
    return copy


@torch.inference_mode()
def texts(runner: Runner, write: Write) -> list[list[int] | None]:
    """What is written after prompts of unlike lengths, until one token or another ends it."""
    prompts = [IDS[0, :9].tolist(), IDS[1, :2].tolist(), IDS[0, 9:14].tolist(), IDS[1, 5:6].tolist()]
    return write(runner, prompts, 8, Ends(frozenset(range(40, 60))))


# ---- the same answers


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_yaml_is_called_as_its_runtime(name: str) -> None:
    assert built("runtime", name).name == name
    assert isinstance(built("runtime", name), Runtime)


@pytest.mark.parametrize("ratio", [pytest.param(0.0, marks=pytest.mark.slow), PRUNED])
@each_engine
def test_fp32_answers_are_those_of_torch(prepare: Prepare, name: str, head: Head, ratio: float) -> None:
    runtime = built("runtime", name)
    runner, model = prepare(FAMILY[head], runtime, WIDE, ratio)
    assert off(answer(runner), answer(model)) < 1e-4
    if head != "encoder":
        with torch.inference_mode():
            assert off(runner.logits(IDS, 5), answer(model)[:, 5:]) < 1e-4
    even = runtime.supports(candidate(WIDE, runtime, WORKLOADS[head], ratio), head, Cpu()) is not None
    assert ratio == 0.0 or even or len(set(model.model.widths.values())) > 1


@each_engine
def test_the_files_of_an_engine_say_nothing_of_the_machine_that_wrote_them(
    prepare: Prepare, folder: Path, name: str, head: Head
) -> None:
    """No folder of Python, of this repository, of a home or of scratch files, and no line of code."""
    runner, _ = prepare(FAMILY[head], built("runtime", name), WIDE)
    assert isinstance(runner, EngineRunner)
    ours = {Path(sys.prefix), Path(sys.base_prefix), Path(torch.__file__).parents[1], Path(__file__).parents[2]}
    ours |= {folder, Path(tempfile.gettempdir()), Path.home()}
    told = re.compile(
        "|".join([r"site-packages", r"/[\w.-]+\.py\b", *(re.escape(f"{each}/") for each in ours)]).encode()
    )
    files = [file for file in runner.folder.rglob("*") if file.is_file()]
    assert len(files) > 1
    assert {file.name: found[0] for file in files if (found := told.search(file.read_bytes()))} == {}


@pytest.mark.parametrize("family", ["modernbert", pytest.param("eurobert", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name != "openvino" else [])
        for name, head in CASES
        if head == "encoder"
    ],
)
def test_an_encoder_with_rotary_positions_takes_several_rows(prepare: Prepare, name: str, family: str) -> None:
    """Texts are longer than ModernBERT's window of attention, which reaches 8 tokens to either side here."""
    runner, model = prepare(family, built("runtime", name), WIDE)
    assert off(answer(runner), answer(model)) < 1e-4
    mask = torch.ones_like(IDS)
    mask[0, 5:] = 0
    with torch.inference_mode():
        padded, wanted = runner.encode(IDS, mask), model.encode(IDS, mask)
    assert off(padded[0, :5], wanted[0, :5]) < 1e-4


@pytest.mark.parametrize("name", DECODING)
def test_a_cache_goes_on_where_the_prompt_ended_with_and_without_padding(prepare: Prepare, name: str) -> None:
    runner, model = prepare("llama", built("runtime", name), WIDE)
    assert written(runner) == written(model)
    assert written(runner, mask=MASK) == written(model, mask=MASK)


@pytest.mark.parametrize("name", DECODING)
def test_beams_of_an_engine_find_what_those_of_torch_find(prepare: Prepare, name: str) -> None:
    runner, model = prepare("llama", built("runtime", name), WIDE)
    assert texts(runner, BeamSearch(3)) == texts(model, BeamSearch(3))
    assert texts(runner, greedy) == texts(model, greedy)


# ---- encoder-decoders


@pytest.mark.parametrize("name", TRANSLATING)
def test_an_encoder_decoder_writes_what_torch_writes(prepare: Prepare, name: str) -> None:
    """Sources of unlike lengths, of which each ends by itself, greedily and by beams."""
    runner, model = prepare("t5", built("runtime", name), WIDE)
    for write in (greedy, BeamSearch(3)):
        assert texts(runner, write) == texts(model, write)
    assert len({len(text or ()) for text in texts(model, BeamSearch(3))}) > 1
    assert written(runner, mask=MASK.flip(1)) == written(model, mask=MASK.flip(1))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "marian", "mbart"])
@pytest.mark.parametrize("name", TRANSLATING)
def test_encoder_decoders_of_other_families_are_converted(prepare: Prepare, name: str, family: str) -> None:
    runner, model = prepare(family, built("runtime", name), WIDE)
    assert off(answer(runner), answer(model)) < 1e-4
    for write in (greedy, BeamSearch(3)):
        assert texts(runner, write) == texts(model, write)


@pytest.mark.parametrize("name", TRANSLATING)
def test_an_encoder_decoder_is_timed_in_three_phases(prepare: Prepare, name: str) -> None:
    runner, _ = prepare("t5", built("runtime", name), WIDE)
    watch = WallStopwatch()
    Translation(batch_size=2, source_tokens=6, new_tokens=4, decoder_tokens=3).run(runner, watch)
    timing = watch.timing(8)
    assert (len(timing.encode), len(timing.ttft), len(timing.tpot)) == (1, 1, 3)
    assert 0 < timing.encode[0] < timing.ttft[0] < timing.latency[0]


@pytest.mark.parametrize("name", ["torch", *TRANSLATING])
def test_an_encoder_decoder_answers_the_same_when_opened_again(
    prepare: Prepare, tiny: Tiny, statistics: Callable[[str], Statistics], tmp_path: Path, name: str
) -> None:
    if name == "torch":  # of a checkpoint's own head: nothing else is written
        runner = model = TorchRunner(compressed(tiny("t5"), statistics("t5"), rounded(8), PRUNED))
    else:
        runner, model = prepare("t5", built("runtime", name), WIDE)
    winner.save(runner, model, tmp_path / "winner", {}, IDS)
    again = load(tmp_path / "winner")
    assert again.opening == Opening((0,))
    assert off(answer(again), answer(runner)) == 0.0
    assert texts(again, BeamSearch(2)) == texts(runner, BeamSearch(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSLATING)
def test_an_encoder_decoder_is_tried_in_a_process_of_its_own(prepare: Prepare, name: str) -> None:
    runner, _ = prepare("t5", built("runtime", name), WIDE)
    assert isinstance(runner, EngineRunner)
    Guard(None).admit(runner.folder, built("runtime", name), 1)


def test_engines_that_were_written_before_there_were_openings_are_read(prepare: Prepare, tmp_path: Path) -> None:
    runner, _ = prepare("llama", OnnxRuntime(), WIDE)
    assert isinstance(runner, EngineRunner)
    found = json.loads((runner.folder / FACTS).read_text())
    del found["opening"]
    (tmp_path / FACTS).write_text(json.dumps(found))
    assert read_facts(tmp_path) == replace(read_facts(runner.folder), opening=Opening())


def test_sources_that_were_overtaken_are_an_error(prepare: Prepare) -> None:
    runner, _ = prepare("t5", OpenVino(), WIDE)
    assert isinstance(runner, EngineRunner)
    stale = runner.read(IDS)
    _, cache = runner.begin(runner.read(IDS), IDS[:, :1])
    with pytest.raises(ValueError, match="keeps the sources of one batch"):
        runner.begin(stale, IDS[:, :1])
    runner.read(IDS)
    with pytest.raises(ValueError, match="keeps one cache"):
        runner.step(IDS[:, :1], cache)


@pytest.mark.parametrize(
    ("name", "bits"),
    [pytest.param(name, bits, marks=[pytest.mark.slow] if bits == 32 or name == "litert" else [])
     for name, head in CASES if head == "encoder" for bits in (32, 8)],
)  # fmt: skip
def test_neither_padding_nor_neighbours_change_an_embedding(prepare: Prepare, name: str, bits: int) -> None:
    """Kernels may add up in another order; that is all."""
    runner, _ = prepare("bert", built("runtime", name), rounded(bits, embeddings=16 if bits == 32 else 8))
    mask = MASK.flip(1)
    with torch.inference_mode():
        whole = runner.encode(IDS)
        padded = runner.encode(IDS, mask)
        alone = runner.encode(IDS[1:, :16])
    assert off(padded[0], whole[0]) < (1e-4 if bits == 32 else 5e-2)
    assert off(padded[1, :16], alone[0]) < (1e-4 if bits == 32 else 5e-2)
    assert torch.nn.functional.cosine_similarity(padded[1, :16], alone[0], dim=-1).min() > 0.9999


@pytest.mark.parametrize(
    "family", ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma", "opt", "qwen2", "qwen3"))]
)
@pytest.mark.parametrize(
    "runtime", [OpenVino(), pytest.param(OnnxRuntime(), marks=pytest.mark.slow)], ids=lambda each: each.name
)
def test_decoders_of_other_families_are_converted(prepare: Prepare, runtime: Any, family: str) -> None:
    runner, model = prepare(family, runtime, WIDE)
    assert off(answer(runner), answer(model)) < 1e-4
    assert written(runner) == written(model)


@pytest.mark.parametrize(
    "family", ["distilbert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("electra", "roberta"))]
)
def test_encoders_of_other_families_are_converted(prepare: Prepare, family: str) -> None:
    runner, model = prepare(family, OpenVino(), WIDE)
    assert off(answer(runner), answer(model)) < 1e-4


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "mistral"])
def test_a_model_that_cannot_be_converted_is_refused_in_a_line(prepare: Prepare, family: str) -> None:
    with pytest.raises(Unsupported, match=r"caches of \w+ are not converted"):
        prepare(family, OpenVino(), WIDE)


# ---- our codes


@pytest.mark.parametrize(
    "quantizer", [rounded(8), rounded(4), Gptq(bits=4, predicts=False), Awq(bits=4, predicts=False)]
)
@pytest.mark.parametrize("ratio", [pytest.param(0.0, marks=pytest.mark.slow), PRUNED])
def test_openvino_multiplies_by_the_codes_that_it_was_given(prepare: Prepare, quantizer: Any, ratio: float) -> None:
    """In fp32 and without rounding activations nothing but the weights differs from the model in 32 bits."""
    runtime = OpenVino(precision="f32", cache_bits=16)
    exact = type(quantizer)(bits=quantizer.bits, scheme="weight_only", predicts=False)
    runner, model = prepare("llama", runtime, exact, ratio)
    assert off(answer(runner), answer(plain(model))) < 2e-2 * float(answer(model).abs().max())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case in SLOW else [])
     for case in CASES if case[0] in ("openvino", "onnxruntime", "litert")],
)  # fmt: skip
def test_rounded_models_answer_nearly_like_their_weights(prepare: Prepare, name: str, head: Head, bits: int) -> None:
    runtime, quantizer = built("runtime", name), rounded(bits, embeddings=8)
    if runtime.supports(candidate(quantizer, runtime, WORKLOADS[head]), head, Cpu()) is not None:
        bits, quantizer = 8, rounded(8, embeddings=8)
    runner, model = prepare(FAMILY[head], runtime, quantizer)
    wanted = answer(plain(model)).flatten()
    assert torch.corrcoef(torch.stack([answer(runner).flatten(), wanted]))[0, 1] > 0.999
    assert runner.weights(1)["effective_bits"] < bits + 3


def plain(runner: TorchRunner) -> TorchRunner:
    """The fp32 model of the weights that the codes stand for."""
    from objectives.runtime.engines.graph_export import fp32_copy

    return TorchRunner(LoadedModel(fp32_copy(runner.model), runner.tokenizer, runner.head))


def test_stored_weights_are_what_packed_linears_unpack(tiny: Tiny, statistics: Callable[[str], Statistics]) -> None:
    for quantizer in (
        Gptq(bits=4, zero="whole", predicts=False),
        rounded(8, scheme="weight_only"),
        Awq(bits=4, zero="whole", predicts=False),
    ):
        model = compressed(tiny("llama"), statistics("llama"), quantizer)
        found = dict(matrices(model))
        for name, weight in found.items():
            module = model.module.get_submodule(name)
            if isinstance(weight, Rounded):
                unpacked = module.unpack(0, module.out_features, torch.float32)
                assert off(torch.from_numpy(weight.dequantized()), unpacked) < 8e-3 * float(unpacked.abs().max())


def test_zero_points_between_the_codes_are_refused(tiny: Tiny, statistics: Callable[[str], Statistics]) -> None:
    model = compressed(tiny("llama"), statistics("llama"), rounded(4))
    with pytest.raises(Unsupported, match=r"quantization\.zero=whole"):
        list(matrices(model))


@pytest.mark.parametrize("family", ["bert", pytest.param("llama", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "runtime", [OpenVino(), pytest.param(OnnxRuntime(), marks=pytest.mark.slow)], ids=lambda each: each.name
)
def test_all_bits_of_a_structure_share_one_conversion(
    tiny: Tiny, statistics: Callable[[str], Statistics], tmp_path: Path, runtime: Any, family: str
) -> None:
    made: list[str] = []
    for quantizer in (WIDE, rounded(8), Gptq(bits=4, predicts=False)):
        model = compressed(tiny(family), statistics(family), runtime.storage(quantizer))
        runtime.prepare(Hand(model, quantizer, tmp_path, made=made))
    assert made == ["graph", "engine", "engine", "engine"]


def test_static_scales_come_from_calibration(prepare: Prepare) -> None:
    runner, model = prepare("bert", OpenVino(activations="static"), rounded(8))
    wanted = answer(plain(model)).flatten()
    assert torch.corrcoef(torch.stack([answer(runner).flatten(), wanted]))[0, 1] > 0.98


# ---- what is refused


REFUSED: list[tuple[Runtime, Head, Any, float, str]] = [
    (LiteRt(), "seq2seq", WIDE, 0.0, "takes encoders, not encoder-decoders"),
    (built("runtime", "ctranslate2"), "seq2seq", WIDE, 0.0, "takes decoders, not encoder-decoders"),
    (TorchCompile(), "seq2seq", WIDE, 0.0, "takes decoders and encoders, not encoder-decoders"),
    (OpenVino(activations="static"), "seq2seq", rounded(8), 0.0, "activations=static is for encoders"),
    (OnnxRuntime(activations="batch"), "seq2seq", rounded(8), 0.0, "activations=batch is for encoders"),
    (OpenVino(), "causal_lm", rounded(8, scheme="fp8"), 0.0, "fp8"),
    (OpenVino(), "causal_lm", rounded(4, simulate=True), 0.0, "simulated"),
    (OpenVino(activations="static"), "causal_lm", rounded(8), 0.0, "activations=static is for encoders"),
    (OpenVino(activations="static"), "encoder", rounded(4), 0.0, "activations=static needs quantization.bits=8"),
    (Torch(prompt_lookup=3), "encoder", WIDE, 0.0, "prompt_lookup is for decoders"),
    (Torch(prompt_lookup=3), "causal_lm", WIDE, 0.0, "one request at a time: workload.batch_size=1"),
    (OnnxRuntime(), "encoder", rounded(16), 0.0, "encoders in 32, 8, 4 bits, not 16"),
    (OnnxRuntime(), "causal_lm", rounded(8, scheme="weight_only"), 0.0, "quantization.scheme=w8a8"),
    (OnnxRuntime(activations="batch"), "causal_lm", rounded(8), 0.0, "activations=batch is for encoders"),
    (LiteRt(), "causal_lm", WIDE, 0.0, "takes encoders, not decoders"),
    (LiteRt(), "encoder", rounded(4), 0.0, "encoders in 32, 8 bits, not 4"),
    (built("runtime", "ctranslate2"), "causal_lm", WIDE, 0.25, "unpruned models only"),
    (built("runtime", "ctranslate2"), "causal_lm", rounded(8), 0.0, "quantization.embeddings=8"),
]


@pytest.mark.parametrize(("runtime", "head", "quantizer", "ratio", "reason"), REFUSED, ids=lambda each: str(each)[:24])
def test_a_pair_that_does_not_run_has_a_reason(
    runtime: Runtime, head: Head, quantizer: Any, ratio: float, reason: str
) -> None:
    found = runtime.supports(candidate(quantizer, runtime, WORKLOADS[head], ratio), head, Cpu())
    assert found is not None
    assert reason in found
    assert "\n" not in found


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's sigaltstack")
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_leaves_signal_handlers_their_stack(prepare: Prepare, name: str) -> None:
    """Python's handlers end the process with a segmentation fault on one that is unmapped with the engine."""
    before = signal_stack()
    runner, _ = prepare("bert" if name == "litert" else "llama", built("runtime", name), WIDE)
    answer(runner)
    after = signal_stack()
    assert (after.start, after.size) == (before.start, before.size)


@pytest.mark.parametrize("name", ENGINES)
def test_engines_run_on_cpus_only(name: str) -> None:
    runtime = built("runtime", name)
    head = next(head for runner, head in CASES if runner == name)
    assert (
        runtime.supports(candidate(WIDE, runtime, WORKLOADS[head]), head, Cuda())
        == "runs on CPUs, device is cuda: device=cpu"
    )


def is_slow(name: str, head: Head, bits: int) -> bool:
    """Return whether a model takes long to prepare: a compiled one half a minute, a whole one without bf16."""
    return (head == "seq2seq" and name != "torch") or (name == "torch_compile" and (head, bits) != ("encoder", 16))


@pytest.mark.parametrize(
    ("name", "head", "bits"),
    [pytest.param(*each, marks=[pytest.mark.slow] if is_slow(*each) else [])
     for each in itertools.product(RUNTIMES, WORKLOADS, (16, 8, 4))],
)  # fmt: skip
def test_whatever_a_runtime_supports_it_prepares(prepare: Prepare, name: str, head: Head, bits: int) -> None:
    runtime = built("runtime", name)
    quantizer = rounded(bits, embeddings=8 if bits == 8 else 16)
    if runtime.supports(candidate(quantizer, runtime, WORKLOADS[head]), head, Cpu()) is None:
        runner, _ = prepare(FAMILY[head], runtime, quantizer)
        watch = WallStopwatch()
        WORKLOADS[head].run(runner, watch)
        assert watch.timing(1).latency[0] > 0


@pytest.mark.parametrize("name", ENGINES)
def test_a_missing_package_is_named_with_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = built("runtime", name)
    assert runtime.requirements() is None
    monkeypatch.setattr(packages, "find_spec", lambda _name: None)
    said = runtime.requirements()
    assert said is not None
    assert said.startswith(f"runtime={name} needs ")
    assert said.endswith(f"pip install 'paretune[{name}]'")
    assert "\n" not in said


def test_masks_leave_the_space() -> None:
    masked = replace(candidate(rounded(16), OpenVino(), WORKLOADS["causal_lm"]), pruning=Wanda(ratio=0.5))
    assert OpenVino().supports(masked, "causal_lm", Cpu()) == (
        "masks are stored by no engine: their zeros would be multiplied"
    )


def test_masks_are_stored_by_no_engine(tiny: Tiny, statistics: Callable[[str], Statistics], folder: Path) -> None:
    model = compressed(tiny("llama"), statistics("llama"), rounded(16), PRUNED)
    model.simulated = True
    with pytest.raises(Unsupported, match="openvino stores no masks"):
        OpenVino().prepare(Hand(model, rounded(16), folder))


def test_a_cache_that_was_overtaken_is_an_error(prepare: Prepare) -> None:
    runner, _ = prepare("llama", OpenVino(), WIDE)
    _, stale = runner.prefill(IDS)
    runner.prefill(IDS)
    with pytest.raises(ValueError, match="keeps one cache"):
        runner.step(IDS[:, :1], stale)


# ---- files


def test_litert_makes_a_file_for_every_size_and_fills_up_what_is_padded(prepare: Prepare) -> None:
    runner, model = prepare("bert", LiteRt(), WIDE)
    assert isinstance(runner, EngineRunner)
    with torch.inference_mode():
        runner.encode(IDS)
        runner.encode(IDS, MASK.flip(1))
    sizes = {file.stem for file in runner.folder.glob("*.tflite")}
    assert "2x18" in sizes
    served = EngineRunner.open(runner.folder, model.tokenizer, 1)
    assert off(answer(served), answer(model)) < 1e-4
    with torch.inference_mode():
        many = served.encode(IDS.repeat(40, 1))  # more rows than any file has
    assert off(many[-2:], answer(model)) < 1e-4
    with pytest.raises(Unsupported, match=r"texts of \d+ tokens at most, got 180"):
        served.encode(IDS.repeat(1, 10))


@pytest.mark.slow
@each_engine
def test_memory_is_weighed_in_a_process_of_its_own(prepare: Prepare, name: str, head: Head) -> None:
    runner, _ = prepare(FAMILY[head], built("runtime", name), WIDE)
    many = 1024 if head == "seq2seq" else 64
    small, large = (
        runner.memory(workload, Cpu())
        for workload in (WORKLOADS[head], replace(WORKLOADS[head], batch_size=many))
        if name != "litert" or workload.batch_size == 64 or runner.encode(IDS) is not None
    )
    for memory in (small, large):
        assert memory.extra["runtime_bytes"] >= 0.5 * runner.stored_bytes
        assert memory.peak + runner.stored_bytes == memory.extra["runtime_bytes"] + memory.extra["resident_peak"]
    assert large.extra["resident_peak"] > small.extra["resident_peak"]


FRESH = """
import json, os, signal, sys, traceback
import torch, objectives, objectives.export.winner

def answer(folder, hidden, ids):
    assert not any(name in sys.modules for name in hidden)
    sys.modules.update(dict.fromkeys(hidden))
    runner, ids = objectives.load(folder), torch.tensor(ids)
    with torch.inference_mode():
        found = runner.encode(ids) if runner.head == "encoder" else runner.logits(ids)
    return len(runner.tokenizer), found.float().tolist()

torch.set_num_threads(1)
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(200)
        try:
            print(json.dumps(answer(*json.loads(line))), flush=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("null", flush=True)
"""
"""Forks for every question, before anything of a runtime is imported: importing torch is what takes seconds."""


@pytest.fixture(scope="module")
def fresh() -> Iterator[Callable[..., Any]]:
    """How many tokens a folder's tokenizer knows, and its answer, in a process that has only imported torch."""
    command = [sys.executable, "-c", FRESH]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(*question: Any) -> Any:
            print(json.dumps(question), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())  # type: ignore[union-attr]

        yield ask
        process.stdin.close()


@each_runtime
def test_a_winner_answers_the_same_in_a_fresh_process(
    prepare: Prepare, fresh: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    """With no other runtime's package: importing one there is an error."""
    runtime = built("runtime", name)
    head: Head = "encoder" if name == "litert" else "causal_lm"
    runner, model = prepare(FAMILY[head], runtime, WIDE)
    WORKLOADS[head].run(runner, WallStopwatch())
    winner.save(runner, model, tmp_path / "winner", {"trial": 3}, IDS)
    own = {} if runtime.is_torch else runtime.packages.run
    others = {"openvino", "nncf", "onnxruntime", "onnx", "onnxscript", "litert_torch", "ai_edge_litert", "ctranslate2"}
    told = fresh(str(tmp_path / "winner"), sorted(others - set(own)), IDS.tolist())
    assert told is not None, "see stderr"
    vocabulary, found = told
    assert vocabulary == len(model.tokenizer)
    assert off(torch.tensor(found), answer(runner)) < 1e-5


def test_a_winner_that_was_changed_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    runner, model = prepare("llama", OnnxRuntime(), WIDE)
    winner.save(runner, model, tmp_path / "winner", {})
    weights = tmp_path / "winner" / "engine" / "model.onnx.data"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"model\.onnx\.data: changed since it was written"):
        load(tmp_path / "winner")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx\.data: missing"):
        load(tmp_path / "winner")


def test_a_winner_without_its_runtime_says_what_to_install(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, model = prepare("llama", OnnxRuntime(), WIDE)
    winner.save(runner, model, tmp_path / "winner", {})
    monkeypatch.setattr(packages, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match="runtime=onnxruntime needs onnxruntime: pip install onnxruntime"):
        load(tmp_path / "winner")


def test_a_folder_names_no_class_but_ours(prepare: Prepare, tmp_path: Path) -> None:
    runner, _ = prepare("llama", OnnxRuntime(), WIDE)
    assert isinstance(runner, EngineRunner)
    found = json.loads((runner.folder / FACTS).read_text())
    for target, said in (("os.system", "must start with"), ("objectives.runtime.nothing.Here", "cannot be made")):
        (tmp_path / FACTS).write_text(json.dumps({**found, "runtime": target}))
        with pytest.raises(ModelError, match=said):
            EngineRunner.open(tmp_path, None, 1)
    assert read_facts(runner.folder).vocabulary == 128


@pytest.mark.slow
def test_a_compiled_model_answers_like_the_eager_one(prepare: Prepare) -> None:
    for head, quantizer in (("causal_lm", WIDE), ("causal_lm", rounded(8)), ("encoder", WIDE)):
        runner, model = prepare(FAMILY[head], TorchCompile(), quantizer)  # type: ignore[index]
        assert off(answer(runner), answer(model)) < (1e-4 if quantizer == WIDE else 0.1)
        assert runner.weights(1)["conversion_seconds"] > 0
        if head == "causal_lm":
            assert written(runner) == written(model)
            assert written(runner, mask=MASK) == written(model, mask=MASK)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert TorchCompile().requirements() == (
        "runtime=torch_compile needs a C++ compiler: install g++, or name one in CXX"
    )


@pytest.mark.parametrize("most", [3, 10])
def test_lookup_writes_what_greedy_decoding_writes(prepare: Prepare, most: Any) -> None:
    runner, model = prepare("llama", Torch(prompt_lookup=most), WIDE)
    generator = torch.Generator().manual_seed(7)
    fewer = 0
    for _ in range(5):
        ids = torch.randint(2, 40, (1, 12), generator=generator).repeat(1, 2)  # something to look up
        found, wanted, passes = ids.new_empty(1, 20), ids.new_empty(1, 20), list[str]()
        with torch.inference_mode():
            runner.generate(ids, found, end_phase=lambda phase, _held, told=passes.append: told(phase))
            model.generate(ids, wanted)
        assert found.tolist() == wanted.tolist()
        assert passes[0] == "prefill"
        fewer += 20 - len(passes)
    assert fewer > 0


def test_a_guess_is_what_followed_the_latest_occurrence() -> None:
    assert guess([1, 2, 3, 9, 1, 2, 3, 8, 5, 1, 2, 3], 2) == [8, 5]
    assert guess([4, 9, 5, 6, 7, 5], 10) == [6, 7, 5]
    assert guess([1, 2, 3], 3) == guess([1], 3) == []
    assert guess([1, 2, 1, 2], 0) == []


def test_what_depends_on_the_text_is_timed_on_text(prepare: Prepare) -> None:
    runner, _ = prepare("llama", Torch(prompt_lookup=3), WIDE)
    assert isinstance(runner, PromptLookupRunner)
    assert runner.text is not None
    first, second = prompts(runner, 1, 8), prompts(runner, 1, 8)
    assert torch.cat([first, second], dim=1).flatten().tolist() == runner.text[:16].tolist()
    summary = summarise(Timing((4.0,), 9, ttft=(1.0,), tpot=(1.5, 1.5)), Generation(new_tokens=9))
    assert summary["tpot"] == 3.0 / 8


def test_eager_attention_is_a_setting_of_torch(prepare: Prepare) -> None:
    runner, model = prepare("llama", Torch(attention="eager"), WIDE)
    assert isinstance(runner, TorchRunner)
    assert runner.module is not model.module
    assert off(answer(runner), answer(model)) < 1e-4
    assert model.module.config._attn_implementation == "sdpa"
