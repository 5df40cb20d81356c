"""Translation writes what transformers would, and each of its three phases is timed and weighed by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import pydantic
import pytest
import torch
from torch import Tensor, nn

from objectives.calibration.statistics import Statistics
from objectives.devices.allocations import Allocations
from objectives.devices.cpu import Cpu
from objectives.devices.stopwatch import Unwatched, WallStopwatch
from objectives.measuring.footprint import footprint
from objectives.measuring.interleaved import Interleaved, merge, summarise
from objectives.models import LoadedModel
from objectives.packing.weighing import stored_bytes
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Phase, Timing
from objectives.workloads.prompts import prompts
from objectives.workloads.translation import Translation
from tests.objectives.conftest import Tiny
from tests.objectives.families import SEQ2SEQ

each_family = pytest.mark.parametrize("family", SEQ2SEQ)
main_family = pytest.mark.parametrize(
    "family", [name if name == "t5" else pytest.param(name, marks=pytest.mark.slow) for name in SEQ2SEQ]
)
"""For what takes seconds a family: one by default."""
LARGE = Translation(batch_size=8, source_tokens=100, new_tokens=25)
NAP = 0.05


class Laps:
    """A watch that takes notes: ``phases`` and, after each, what is ``held``."""

    def start(self, laps: int) -> None:
        self.announced, self.phases, self.held = laps, list[Phase](), list[Any]()

    def end_phase(self, phase: Phase, held: Any = None) -> None:
        self.phases.append(phase)
        cache = held and held.cache
        self.held.append(cache and (cache.get_seq_length(), cache.cross_attention_cache.get_seq_length()))


def written(model: LoadedModel, workload: Translation) -> tuple[Tensor, Laps]:
    """What the decoder is given and its last answer, [rows, tokens]; and the laps."""
    watch = Laps()

    def note(_module: Any, _inputs: Any, given: dict[str, Any], output: Any) -> None:
        seen[:-1] = [*seen[:-1], given["decoder_input_ids"]]
        seen[-1:] = [output.logits[:, -1:].argmax(dim=-1)]

    seen = [torch.empty(0)]
    hook = model.module.register_forward_hook(note, with_kwargs=True)
    workload.run(TorchRunner(model), watch)
    hook.remove()
    return torch.cat(seen, dim=1), watch


def eloquent(model: LoadedModel) -> LoadedModel:
    """A copy in floats that rarely repeats itself, heeds its source, and never chooses the end."""
    copy = model.copy()
    copy.module.float()
    head = torch.randn(128, 64, generator=torch.Generator().manual_seed(5))
    head[copy.module.config.eos_token_id] = 0.0
    copy.module.get_input_embeddings().weight.mul_(12)
    copy.module.lm_head.weight = nn.Parameter(head, requires_grad=False)
    return copy


def timed(model: LoadedModel, workload: Translation) -> Timing:
    watch = WallStopwatch()
    workload.run(TorchRunner(model), watch)
    return watch.timing(workload.items)


def seconds(model: LoadedModel, workload: Translation) -> dict[str, float]:
    """Metrics of a few runs."""
    return summarise(merge([timed(model, workload) for _ in range(5)]), workload)


def sleepy(model: LoadedModel, part: str, when: Callable[[dict[str, Any]], bool] = lambda _: True) -> LoadedModel:
    """A copy that naps whenever its encoder or decoder runs, given what ``when`` asks for."""
    copy = model.copy()

    def nap(_part: Any, _inputs: Any, given: dict[str, Any]) -> None:
        if when(given):
            time.sleep(NAP)

    getattr(copy.module, f"get_{part}")().register_forward_pre_hook(nap, with_kwargs=True)
    return copy


# ---- what is written


@each_family
@pytest.mark.parametrize("prefix", [1, 3])
def test_it_writes_what_transformers_generates(tiny: Tiny, family: str, prefix: int) -> None:
    model = eloquent(tiny(family))
    workload = Translation(batch_size=3, source_tokens=9, new_tokens=7, decoder_tokens=prefix)
    sources = prompts(TorchRunner(model), 3, 9)
    start = torch.full((3, prefix), model.module.config.decoder_start_token_id)
    asked = {"max_new_tokens": 7, "min_new_tokens": 7, "do_sample": False, "num_beams": 1}
    mask = torch.ones_like(sources)
    expected = model.module.generate(sources, attention_mask=mask, decoder_input_ids=start, **asked)
    assert torch.equal(written(model, workload)[0], expected)
    for row, other in pairwise(expected[:, prefix:].tolist()):
        assert row != other
        assert len(set(row)) >= 4


@each_family
def test_a_lap_ends_the_encoder_and_every_pass_of_the_decoder(tiny: Tiny, family: str) -> None:
    _, watch = written(tiny(family), Translation(batch_size=2, source_tokens=9, new_tokens=4, decoder_tokens=2))
    assert watch.phases == ["encode", "prefill", "decode", "decode", "decode"]
    assert watch.announced == 5
    assert watch.held == [None, (2, 9), (3, 9), (4, 9), (5, 9)]


@each_family
def test_sources_are_encoded_once_and_the_model_is_left_as_it_was(tiny: Tiny, family: str) -> None:
    model, passes = tiny(family).copy(), []
    model.module.get_encoder().register_forward_hook(lambda *_: passes.append(1))
    Translation(batch_size=2, source_tokens=9, new_tokens=4, decoder_tokens=2).run(TorchRunner(model), Unwatched())
    assert passes == [1]
    ids = torch.ones(2, 5, dtype=torch.long)
    assert model.module(**model.inputs(ids)).logits.shape == (2, 5, 128)


def test_the_head_reads_the_last_token_of_a_prefix_only(tiny: Tiny) -> None:
    model, shapes = tiny("t5").copy(), []
    model.module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.logits.shape)))
    Translation(batch_size=2, source_tokens=9, new_tokens=2, decoder_tokens=6).run(TorchRunner(model), Unwatched())
    assert shapes == [(2, 1, 128), (2, 1, 128)]


@each_family
@pytest.mark.parametrize("bits", [8, 4])
def test_it_drives_packed_models(tiny: Tiny, statistics: Callable[[str], Statistics], family: str, bits: int) -> None:
    model = tiny(family).copy()
    RoundToNearest(bits=bits, group_size=32).quantize_(model, statistics(family), Cpu())
    tokens, _ = written(model, Translation(batch_size=2, source_tokens=9, new_tokens=3))
    assert tokens.shape == (2, 4)


@pytest.mark.parametrize("setting", ["batch_size", "source_tokens", "new_tokens", "decoder_tokens"])
def test_settings_are_positive_integers(setting: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=setting):
        Translation(**{setting: 0})


# ---- time


@each_family
def test_a_slow_encoder_is_seen_in_encode_and_ttft_and_not_in_tpot(tiny: Tiny, family: str) -> None:
    workload = Translation(source_tokens=9, new_tokens=3)
    metrics = seconds(sleepy(tiny(family), "encoder"), workload)
    assert metrics["encode"] >= NAP
    assert NAP <= metrics["ttft"] < 2 * NAP
    assert metrics["tpot"] < NAP


@each_family
def test_a_slow_first_pass_is_seen_in_ttft_only(tiny: Tiny, family: str) -> None:
    model = sleepy(tiny(family), "decoder", lambda given: given["past_key_values"] is None)
    metrics = seconds(model, Translation(source_tokens=9, new_tokens=3))
    assert NAP <= metrics["ttft"] < 2 * NAP
    assert metrics["encode"] < NAP
    assert metrics["tpot"] < NAP


@each_family
def test_a_slow_decode_is_seen_in_tpot_only(tiny: Tiny, family: str) -> None:
    model = sleepy(tiny(family), "decoder", lambda given: given["past_key_values"] is not None)
    metrics = seconds(model, Translation(source_tokens=9, new_tokens=3))
    assert NAP <= metrics["tpot"] < 2 * NAP
    assert metrics["ttft"] < NAP
    assert metrics["latency.p50"] >= 2 * NAP


def test_timed_in_turns_it_has_the_metrics_of_all_three_phases(tiny: Tiny) -> None:
    workload = Translation(batch_size=3, source_tokens=9, new_tokens=4)
    run = partial(timed, tiny("marian"), workload)
    sampled = Interleaved(warmups=1, min_rounds=2, max_rounds=2, max_seconds=60.0, patience=0.0).time([run, run])
    timing = sampled.timings[1]
    runs = len(timing.latency)
    assert (len(timing.encode), len(timing.ttft), len(timing.tpot)) == (runs, runs, 3 * runs)
    assert timing.items == 3 * 4
    metrics = summarise(timing, workload)
    assert metrics["ttft"] > metrics["encode"] == median(timing.encode) > 0
    assert metrics["per_token"] == pytest.approx(metrics["latency.p50"] / 4)
    assert metrics["prefill_throughput"] == pytest.approx(3 * 9 / metrics["ttft"])
    assert metrics["decode_throughput"] == pytest.approx(3 / metrics["tpot"])
    assert timing.latency[0] == pytest.approx(timing.ttft[0] + sum(timing.tpot[:3]))


# ---- memory


@pytest.mark.slow
@main_family
def test_excerpts_need_what_the_same_phase_of_the_whole_run_needs(tiny: Tiny, family: str) -> None:
    for workload in (LARGE, replace(LARGE, new_tokens=2), replace(LARGE, decoder_tokens=5)):
        watch = Allocations()
        workload.run(TorchRunner(tiny(family)), watch)
        memory = Cpu().memory(TorchRunner(tiny(family)), workload)
        assert memory.peaks == watch.peaks
        assert memory.peaks.keys() == {"encode", "prefill", "decode"}
        assert memory.cache == watch.cache


@main_family
def test_both_caches_are_weighed(tiny: Tiny, family: str) -> None:
    """Keys and values, two blocks, bf16; the prefix, and all new tokens but the last, are the decoder's own."""
    workload = replace(LARGE, decoder_tokens=3)
    per_token = 2 * 2 * 64 * 2
    assert Cpu().memory(TorchRunner(tiny(family)), workload).cache == 8 * (100 + 3 + 25 - 1) * per_token


def test_one_new_token_has_no_decode(tiny: Tiny) -> None:
    workload = replace(LARGE, new_tokens=1)
    assert Cpu().memory(TorchRunner(tiny("t5")), workload).peaks.keys() == {"encode", "prefill"}
    assert footprint(tiny("t5"), workload).peaks.keys() == {"encode", "prefill"}


def test_what_the_encoder_allocates_is_seen_while_it_runs(tiny: Tiny) -> None:
    model, size = tiny("bart").copy(), 2**23

    def fill(*_: Any) -> None:
        torch.empty(size)

    model.module.get_encoder().register_forward_pre_hook(fill)
    plain, peaks = (Cpu().memory(TorchRunner(each), LARGE).peaks for each in (tiny("bart"), model))
    assert peaks["encode"] == pytest.approx(4 * size, rel=0.01)
    assert [peaks[phase] for phase in ("prefill", "decode")] == [plain[phase] for phase in ("prefill", "decode")]


@main_family
@pytest.mark.parametrize("placed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_footprint_is_what_the_run_needs(tiny: Tiny, family: str, placed: bool) -> None:
    model = tiny(family).copy()
    if placed:
        Cpu().to_device_(model)
    shapes, memory = footprint(model, LARGE), Cpu().memory(TorchRunner(model), LARGE)
    assert shapes.cache == memory.cache
    assert shapes.peaks == {phase: pytest.approx(peak, rel=0.05, abs=2**16) for phase, peak in memory.peaks.items()}


@each_family
def test_work_is_that_of_the_stack_that_runs(tiny: Tiny, family: str) -> None:
    model = tiny(family)
    work = footprint(model, LARGE).work
    encoder, decoder = (sum_of(model, stack) for stack in ("encoder", "decoder"))
    cross = 2 * 2 * 64 * 64 * 2  # keys and values of the sources, computed once
    biases = 0 if family == "t5" else 2 * 2 * 64 * 2
    head = 128 * 64 * 2
    small = 4096  # norms and biases beside the blocks
    cache = 8 * 100 * 2 * 2 * 64 * 2
    assert work["encode"].bytes == pytest.approx(encoder, abs=small)
    assert work["prefill"].bytes == pytest.approx(decoder + head + cache + cache // 100, abs=small)
    assert work["decode"].bytes == pytest.approx(decoder + head - cross - biases + cache + 25 * cache // 100, abs=small)


def sum_of(model: LoadedModel, stack: str) -> int:
    """Bytes of its blocks."""
    return stored_bytes(block.module for block in model.blocks() if block.name.startswith(stack))
