"""What is predicted from shapes is what building and running find."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from objectives.calibration.statistics import Statistics
from objectives.devices.allocations import Allocations
from objectives.devices.cpu import Cpu
from objectives.devices.stopwatch import Unwatched
from objectives.measuring import trace
from objectives.measuring.footprint import Footprint, fake_copy, footprint, is_fake, sketch
from objectives.models import LoadedModel
from objectives.models.canonical import canonicalize_
from objectives.packing import bf16, capability, embedding, int4, int8, linear
from objectives.packing.capability import CpuKernels, cpu_kernels
from objectives.packing.weighing import stored_bytes
from objectives.protocols.candidate import Candidate
from objectives.protocols.running import Workload
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.depth import Depth
from objectives.pruning.structured import Structured
from objectives.pruning.wanda import Wanda
from objectives.quantization.awq import Awq
from objectives.quantization.gptq import Gptq
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.torch import Torch
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from objectives.workloads.translation import Translation
from tests.conftest import head_of
from tests.objectives.conftest import Tiny
from tests.objectives.families import TRIED, answer
from tests.pairwise import pairwise

Collected = Callable[[str], Statistics]

WORKLOADS: dict[str, Workload] = {
    "causal_lm": Generation(batch_size=4, prompt_tokens=80, new_tokens=4),
    "encoder": Encoding(batch_size=4, tokens=80),
    "seq2seq": Translation(batch_size=4, source_tokens=80, new_tokens=4),
}
PRUNING: dict[str, Any] = {
    "dense": Structured(),
    "pruned": Structured(ratio=0.25, criterion=Magnitude()),
    "shallow": Depth(ratio=0.4),
}
STORING: dict[str, Any] = {
    "16 bits": RoundToNearest(predicts=False),
    "8 bits": RoundToNearest(bits=8, predicts=False),
    "8 bits, weights alone": RoundToNearest(bits=8, scheme="weight_only", predicts=False),
    "4 bits": RoundToNearest(bits=4, predicts=False),
    "8 bits, embeddings too": RoundToNearest(bits=8, embeddings=8, predicts=False),
}
CORE = ("llama", "bert", "t5")
OTHERS = sorted(set(TRIED) - set(CORE))
CASES = [
    *(("this CPU", family, pruning, storing) for family in CORE for pruning in PRUNING for storing in STORING),
    *(("plain", family, "dense", storing) for family in CORE for storing in STORING),
    ("plain", "t5", "shallow", "16 bits"),  # at whose peak an idle dropout would count, if it were taken for a copy
]
OF_OTHERS = [("this CPU", "pruned", "4 bits"), ("this CPU", "dense", "16 bits"), ("plain", "shallow", "8 bits")]
PLAIN = CpuKernels(bf16=False, int8=False)


@pytest.fixture
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CpuKernels:
    """As this CPU has them, or none for bf16 and int8, which every CPU can do without."""
    if request.param == "this CPU":
        return cpu_kernels()
    for module in (capability, bf16, embedding, int8, linear, trace):
        monkeypatch.setattr(module, "cpu_kernels", lambda: PLAIN)
    return PLAIN


on_both = pytest.mark.parametrize("kernels", ["this CPU", "plain"], indirect=True)


def candidate(family: str, pruning: str, storing: str) -> Candidate:
    quantizer = STORING[storing]
    if quantizer.embeddings == 8 and head_of(family) == "encoder":  # there is no head to store
        quantizer = RoundToNearest(bits=8, predicts=False)
    return Candidate(PRUNING[pruning], quantizer, WORKLOADS[head_of(family)], Off(), Torch())


def built(dense: LoadedModel, chosen: Candidate, statistics: Statistics) -> LoadedModel:
    model = dense.copy()
    chosen.pruning.prune_(model, statistics)
    chosen.quantization.quantize_(model, statistics, Cpu())
    return model


def measured(model: LoadedModel, workload: Workload) -> Allocations:
    """Peaks of every excerpt; run once before, as what is made once and kept is no part of a run."""
    found, runner = Allocations(), TorchRunner(model)
    for phase, excerpt in workload.representative_runs().items():
        excerpt.run(runner, Unwatched())
        watch = Allocations()
        excerpt.run(runner, watch)
        found.peaks[phase], found.cache = watch.peaks[phase], watch.cache
    return found


def assert_agree(predicted: Footprint, model: LoadedModel, workload: Workload, slack: int) -> None:
    """The same weights and cache to the byte, the same peaks within 3 % and ``slack`` bytes."""
    found = measured(model, workload)
    assert predicted.weights == stored_bytes([model.module])
    assert predicted.cache == found.cache
    assert predicted.peaks.keys() == found.peaks.keys()
    for phase, peak in found.peaks.items():
        assert predicted.peaks[phase] == pytest.approx(peak, rel=0.03, abs=slack), phase
    assert predicted.peak == predicted.weights + max(predicted.peaks.values())


@pairwise("kernels family pruning storing", CASES, indirect=["kernels"])
def test_a_prediction_is_what_building_and_running_find(
    tiny: Tiny, statistics: Collected, family: str, pruning: str, storing: str, kernels: CpuKernels
) -> None:
    """Of models so small that what kernels for bf16 allocate inside themselves (up to 42 KiB) shows."""
    chosen, dense = candidate(family, pruning, storing), tiny(family)
    predicted = footprint(sketch(fake_copy(dense), chosen, statistics(family), Cpu()), chosen.workload)
    model = built(dense, chosen, statistics(family))
    assert_agree(predicted, model, chosen.workload, 64 * 1024 if kernels.bf16 else 8 * 1024)


@pytest.mark.parametrize(
    ("kernels", "pruning", "storing"),
    [OF_OTHERS[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in OF_OTHERS[1:])],
    indirect=["kernels"],
)
@pytest.mark.parametrize("family", OTHERS)
def test_a_prediction_of_another_family_is_too(
    tiny: Tiny, statistics: Collected, family: str, pruning: str, storing: str, kernels: CpuKernels
) -> None:
    test_a_prediction_is_what_building_and_running_find(tiny, statistics, family, pruning, storing, kernels)


def larger_llama() -> LoadedModel:
    """A block as wide as SmolLM2's, with a vocabulary that is multiplied in slices."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=4096, hidden_size=576, intermediate_size=1536, num_hidden_layers=1, num_attention_heads=9,
        num_key_value_heads=3, pad_token_id=0, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    module = LlamaForCausalLM(config).to(torch.bfloat16).eval().requires_grad_(False)
    return canonicalize_(LoadedModel(module, None, "causal_lm"))


@pytest.fixture(scope="module")
def larger() -> LoadedModel:
    return larger_llama()


def stored(storing: str) -> Candidate:
    """The larger model, unpruned."""
    return Candidate(
        Structured(), STORING[storing], Generation(batch_size=2, prompt_tokens=128, new_tokens=3), Off(), Torch()
    )


ByStorage = Callable[[str, CpuKernels], Any]


@pytest.fixture(scope="module")
def larger_built(larger: LoadedModel) -> ByStorage:
    """The larger model as these kernels, which must be in use, run it. Shared: never changed."""
    return cache(lambda storing, _kernels: built(larger, stored(storing), Statistics(larger, {})))


@pytest.fixture(scope="module")
def larger_predicted(larger: LoadedModel, larger_built: ByStorage) -> ByStorage:
    """What its sketch predicts; run once before, as what is made once and kept is no part of a run."""

    @cache
    def predicted(storing: str, kernels: CpuKernels) -> Footprint:
        chosen = stored(storing)
        chosen.workload.run(TorchRunner(larger_built(storing, kernels)), Unwatched())
        return footprint(sketch(fake_copy(larger), chosen, Statistics(larger, {}), Cpu()), chosen.workload)

    return predicted


@on_both
@pytest.mark.parametrize("storing", [*STORING])
def test_a_prediction_of_a_larger_model_is_within_two_percent(
    larger_built: ByStorage, larger_predicted: ByStorage, storing: str, kernels: CpuKernels
) -> None:
    predicted, model = larger_predicted(storing, kernels), larger_built(storing, kernels)
    found = measured(model, stored(storing).workload).peaks
    assert predicted.weights == stored_bytes([model.module])
    assert predicted.peaks["prefill"] == pytest.approx(found["prefill"], rel=0.02)
    assert predicted.peaks["decode"] == pytest.approx(found["decode"], rel=0.02, abs=64 * 1024)


@pytest.mark.parametrize(
    "quantizer",
    [Gptq(bits=4), Awq(bits=4), Mixed(bits=6.0), Mixed(bits=16.0)],
    ids=lambda quantizer: f"{type(quantizer).__name__} {quantizer.bits}",
)
def test_every_quantiser_is_sketched_as_it_stores(tiny: Tiny, statistics: Collected, quantizer: Any) -> None:
    chosen = Candidate(Structured(ratio=0.25, criterion=Magnitude()), quantizer, WORKLOADS["causal_lm"], Off(), Torch())
    shapes = footprint(sketch(fake_copy(tiny("llama")), chosen, statistics("llama"), Cpu()), chosen.workload)
    model = built(tiny("llama"), chosen, statistics("llama"))
    assert shapes.weights == pytest.approx(stored_bytes([model.module]), rel=0.15 if type(quantizer) is Mixed else 0)


@pytest.mark.parametrize(
    "pruning",
    [
        Wanda(ratio=0.5),
        Structured(ratio=0.4, depth_share=0.5),
        Structured(ffn_ratio=0.3),
        Structured(attention_ratio=0.3),
    ],
    ids=repr,
)
def test_every_pruner_is_sketched_as_it_cuts(tiny: Tiny, statistics: Collected, pruning: Any) -> None:
    chosen = Candidate(pruning, STORING["16 bits"], WORKLOADS["causal_lm"], Off(), Torch())
    shapes = footprint(sketch(fake_copy(tiny("llama")), chosen, statistics("llama"), Cpu()), chosen.workload)
    assert shapes.weights == stored_bytes([built(tiny("llama"), chosen, statistics("llama")).module])


@on_both
@pytest.mark.parametrize("storing", STORING)
def test_a_compressed_model_is_predicted_from_itself_as_from_its_sketch(
    larger_built: ByStorage, larger_predicted: ByStorage, storing: str, kernels: CpuKernels
) -> None:
    """Which also says that what fbgemm hides outside of tensors is found in both."""
    model = larger_built(storing, kernels)
    assert footprint(model, stored(storing).workload) == larger_predicted(storing, kernels)
    assert not is_fake(model)


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "gpt2", "gemma2"])
def test_operations_are_those_that_torch_counts(tiny: Tiny, statistics: Collected, family: str) -> None:
    workload = WORKLOADS[head_of(family)]
    chosen = Candidate(Structured(), STORING["16 bits"], workload, Off(), Torch())
    predicted = footprint(sketch(fake_copy(tiny(family)), chosen, statistics(family), Cpu()), workload)
    model = tiny(family).copy()  # ordinary linears, whose products torch knows
    for phase, excerpt in workload.representative_runs().items():
        watch = FlopsByPhase()
        with sdpa_kernel(SDPBackend.MATH), watch.mode:  # made of products that torch knows
            excerpt.run(TorchRunner(model), watch)
        assert sum(predicted.work[phase].operations.values()) == watch.last[phase], phase


class FlopsByPhase(Unwatched):
    """What torch's own counter found in the last lap of each phase."""

    def __init__(self) -> None:
        self.mode, self.last, self._before = FlopCounterMode(display=False), {}, 0

    def start(self, laps: int) -> None:
        self._before = self.mode.get_total_flops()

    def end_phase(self, phase: Any, held: object = None) -> None:
        now = self.mode.get_total_flops()
        self.last[phase], self._before = now - self._before, now


def test_operations_of_integers_are_told_apart_and_pruning_lowers_them(tiny: Tiny, statistics: Collected) -> None:
    def work(pruning: str, storing: str) -> Any:
        chosen = candidate("llama", pruning, storing)
        return footprint(sketch(fake_copy(tiny("llama")), chosen, statistics("llama"), Cpu()), chosen.workload).work

    dense, pruned, rounded = (
        work(*which) for which in (("dense", "16 bits"), ("pruned", "16 bits"), ("dense", "8 bits"))
    )
    for phase in ("prefill", "decode"):
        of_dense, of_pruned = (sum(each[phase].operations.values()) for each in (dense, pruned))
        assert 0.5 * of_dense < of_pruned < 0.95 * of_dense
        assert sum(rounded[phase].operations.values()) == of_dense
    if cpu_kernels().int8:
        assert rounded["prefill"].operations["int8"] > 0.5 * sum(rounded["prefill"].operations.values())


def test_what_a_lap_reads_is_what_its_modules_hold_and_the_cache(tiny: Tiny, statistics: Collected) -> None:
    chosen = candidate("llama", "dense", "16 bits")
    shapes = footprint(sketch(fake_copy(tiny("llama")), chosen, statistics("llama"), Cpu()), chosen.workload)
    assert shapes.work["decode"].bytes == shapes.weights + shapes.cache  # its head multiplies by the embedding
    untied = candidate("mistral", "dense", "16 bits")
    shapes = footprint(sketch(fake_copy(tiny("mistral")), untied, statistics("mistral"), Cpu()), untied.workload)
    table = 128 * 64 * 2
    assert shapes.work["decode"].bytes == shapes.weights - table + shapes.cache


@pytest.mark.parametrize("storing", STORING)
def test_remembering_linears_changes_no_prediction(
    tiny: Tiny, statistics: Collected, storing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = candidate("llama", "pruned", storing)
    model = sketch(fake_copy(tiny("llama")), chosen, statistics("llama"), Cpu())
    remembered = footprint(model, chosen.workload)
    monkeypatch.setattr(
        "objectives.measuring.trace._forward", lambda linear, _trace, _known, x: type(linear).forward(linear, x)
    )
    assert footprint(model, chosen.workload) == remembered


def test_a_trace_leaves_the_model_as_it_was(tiny: Tiny) -> None:
    fake = fake_copy(tiny("llama"))
    Cpu().to_device_(fake)
    footprint(fake, WORKLOADS["causal_lm"])
    for part in fake.module.modules():
        assert "forward" not in vars(part)
        assert not part._forward_pre_hooks


def fakes() -> int:
    gc.collect()
    return sum(isinstance(each, FakeTensor) for each in gc.get_objects())


@on_both
@pytest.mark.parametrize("storing", ["8 bits", "8 bits, weights alone", "4 bits", "8 bits, embeddings too"])
def test_a_sketch_leaves_nothing_fake_behind(
    larger: LoadedModel, larger_built: ByStorage, storing: str, kernels: CpuKernels
) -> None:
    """Caches that are filled while fake tensors run must not hold any: they would surface in real answers."""
    workload, nothing = Generation(prompt_tokens=40, new_tokens=2), Statistics(larger, {})
    chosen = Candidate(Structured(), STORING[storing], workload, Off(), Torch())
    ids = torch.arange(2, 42)[None]
    before = answer(larger_built(storing, kernels), ids)
    there = fakes()
    for each in (int8._ones, int8._fbgemm_is_exact, int4.block_rows, int4.block_layout):
        each.cache_clear()
    footprint(sketch(fake_copy(larger), chosen, nothing, Cpu()), workload)
    model = built(larger, chosen, nothing)
    after = answer(model, ids)
    assert type(after) is torch.Tensor
    assert torch.equal(after, before)
    assert torch.equal(answer(model, ids[:, :1]), answer(built(larger, chosen, nothing), ids[:, :1]))
    assert fakes() == there


def test_a_sketch_shares_no_change_with_the_skeleton_it_is_made_of(tiny: Tiny, statistics: Collected) -> None:
    fake = fake_copy(tiny("llama"))
    assert is_fake(fake)
    before = stored_bytes([fake.module])
    wide = RoundToNearest(bits=32, predicts=False)
    for pruning in PRUNING:
        chosen = candidate("llama", pruning, "4 bits")
        sketch(fake, chosen, statistics("llama"), Cpu())
        sketch(fake, replace(chosen, quantization=wide), statistics("llama"), Cpu())
    assert stored_bytes([fake.module]) == before == stored_bytes([tiny("llama").module])
    assert len(list(fake.blocks())) == 3


@pytest.mark.parametrize(
    ("tiles", "tokens", "copied"),
    [(True, 64, 2 * 4 * 2 * 64 * (16 + 15)), (True, 63, 0), (False, 64, 0)],
)
def test_attention_on_tiles_copies_keys_and_values(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, tokens: int, copied: int
) -> None:
    """Bytes of both, of an even width for keys; found by torch's profiler on a CPU with AMX."""
    monkeypatch.setattr(trace, "cpu_kernels", lambda: CpuKernels(bf16=True, int8=True, tiles=tiles))
    query, key = (torch.empty(4, heads, tokens, 15, dtype=torch.bfloat16) for heads in (4, 2))
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    assert trace._copied(attention, (query, key, key)) == copied
    assert trace._copied(attention, (query.float(), key.float(), key.float())) == 0
