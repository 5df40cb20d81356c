"""Workloads: what was planted in a phase is timed in that phase, and excerpts are as large as the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from torch import Tensor

from objectives.calibration.statistics import Statistics
from objectives.devices import stopwatch
from objectives.devices.cpu import Cpu
from objectives.devices.stopwatch import Unwatched, WallStopwatch, timing_of
from objectives.measuring.interleaved import merge, summarise
from objectives.metrics import METRICS
from objectives.models import LoadedModel
from objectives.protocols.running import Workload
from objectives.protocols.serving import Loading
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Phase, Timing
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from tests.conftest import head_of
from tests.objectives.conftest import Tiny
from tests.objectives.families import TRIED
from tests.objectives.recipes import built, choices
from tests.objectives.standins import asleep, stub

SIX = Generation(prompt_tokens=4, new_tokens=6)
SMALL: dict[str, dict[str, int]] = {
    "generation": {"batch_size": 2, "prompt_tokens": 9, "new_tokens": 4},
    "encoding": {"batch_size": 2, "tokens": 9},
    "translation": {"batch_size": 2, "source_tokens": 9, "new_tokens": 4},
}
"""Settings by yaml that a tiny model runs in no time; a new workload without a row here runs as its yaml says."""
ALONE = [choice for choice in choices("workload") if not isinstance(built("workload", choice), Loading)]
"""What a runner runs by itself. Loads of a server have tests of their own, in test_serving.py."""
EXAMPLES = {"causal_lm": "llama", "encoder": "bert", "seq2seq": "t5"}


def timed(workload: Workload, runner: TorchRunner, runs: int = 5) -> Timing:
    def once() -> Timing:
        watch = Cpu().stopwatch()
        workload.run(runner, watch)
        return watch.timing(workload.items)

    return merge([once() for _ in range(runs)])


# ---- timing


def test_a_slow_decode_is_seen_in_tpot_and_not_in_ttft() -> None:
    timing = timed(SIX, stub(decode=asleep(0.005)))
    assert 0.005 <= np.median(timing.tpot) < 0.009
    assert np.median(timing.ttft) < 0.003
    assert np.median(timing.latency) >= 5 * 0.005


def test_a_slow_prefill_is_seen_in_ttft_and_not_in_tpot() -> None:
    timing = timed(SIX, stub(prefill=asleep(0.02)))
    assert 0.02 <= np.median(timing.ttft) < 0.03
    assert np.median(timing.tpot) < 0.003
    assert 0.02 <= np.median(timing.latency) < 0.035


def test_sleeping_takes_wall_time_and_no_cpu_time_and_computing_takes_both() -> None:
    asleep_ = timed(SIX, stub(decode=asleep(0.005)))
    assert np.median(asleep_.cpu) < 0.5 * np.median(asleep_.latency)
    busy = timed(SIX, stub(decode=lambda: sum(range(200_000))))
    assert 0.005 < np.median(busy.cpu) <= 1.1 * np.median(busy.latency)


def test_one_run_of_generation_gives_a_latency_a_ttft_and_a_step_per_further_token() -> None:
    timing = timed(Generation(batch_size=3, prompt_tokens=4, new_tokens=6), stub(), runs=1)
    assert (len(timing.latency), len(timing.ttft), len(timing.tpot), len(timing.cpu)) == (1, 1, 5, 1)
    assert timing.items == 3 * 6
    assert timing.latency[0] == pytest.approx(timing.ttft[0] + sum(timing.tpot))
    assert timing.encode == ()
    single = timed(Generation(new_tokens=1), stub(), runs=1)
    assert single.tpot == ()
    assert single.latency == single.ttft


def test_encoding_times_one_pass_over_the_batch() -> None:
    timing = timed(Encoding(batch_size=3, tokens=5), stub(prefill=asleep(0.01), head="encoder"))
    assert 0.01 <= np.median(timing.latency) < 0.02
    assert timing.items == 3
    assert timing.encode == timing.latency
    assert timing.ttft == timing.tpot == ()


def test_the_first_token_of_an_encoder_decoder_waits_for_its_encoder() -> None:
    timing = timing_of(["encode", "prefill", "decode", "decode"], [4.0, 1.0, 0.5, 0.25], cpu=7.0, items=3)
    assert timing == Timing((5.75,), 3, (4.0,), (5.0,), (0.5, 0.25), (7.0,))


def test_the_device_is_waited_for_before_every_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def stamp() -> float:
        log.append("stamp")
        return float(len(log))

    monkeypatch.setattr(stopwatch, "perf_counter", stamp)
    model = stub(prefill=lambda: log.append("pass"), decode=lambda: log.append("pass"))
    for workload, passes in ((Generation(new_tokens=3), 3), (Encoding(), 1)):
        log.clear()
        workload.run(model, WallStopwatch(lambda: log.append("wait")))
        assert log == ["wait", "stamp", *["pass", "wait", "stamp"] * passes]


# ---- what the model is given


class Seen:
    """A model that notes what it is given and what it answers."""

    def __init__(self, model: LoadedModel) -> None:
        self.model, self.given, self.answers = model.copy(), [], []
        forward = self.model.module.forward

        def watched(**kwargs: Any) -> Any:
            output = forward(**kwargs)
            self.given.append(kwargs["input_ids"])
            self.answers.append(output)
            return output

        self.model.module.forward = watched


def test_generation_continues_its_own_prompts_from_the_cache(tiny: Tiny) -> None:
    seen, lengths = Seen(tiny("llama")), []

    class Lengths(Unwatched):
        def end_phase(self, phase: Phase, held: Any = None) -> None:
            lengths.append(held.get_seq_length())

    for _ in range(2):
        Generation(batch_size=2, prompt_tokens=7, new_tokens=4).run(TorchRunner(seen.model), Lengths())
    assert torch.equal(torch.cat(seen.given[:4], dim=1), torch.cat(seen.given[4:], dim=1))
    assert [tuple(ids.shape) for ids in seen.given[:4]] == [(2, 7), (2, 1), (2, 1), (2, 1)]
    assert lengths[:4] == [7, 8, 9, 10]
    whole = tiny("llama").module(input_ids=torch.cat(seen.given[:4], dim=1)).logits
    assert torch.equal(torch.cat(seen.given[1:4], dim=1), whole[:, 6:9].argmax(dim=-1))
    assert not torch.equal(seen.given[0][0], seen.given[0][1])


def test_encoding_reads_texts_of_the_length_asked(tiny: Tiny) -> None:
    seen = Seen(tiny("bert"))
    Encoding(batch_size=3, tokens=17).run(TorchRunner(seen.model), Unwatched())
    assert [tuple(ids.shape) for ids in seen.given] == [(3, 17)]


# ---- the contract


class Told(Unwatched):
    """Notes the laps, and how much was there to read in each: tokens of the ids and of the cache before."""

    def __init__(self) -> None:
        self.announced, self.phases, self.began = 0, [], 0

    def start(self, laps: int) -> None:
        self.began, self.announced = self.began + 1, laps

    def end_phase(self, phase: Phase, held: Any = None) -> None:
        self.phases.append(phase)


def small(choice: str) -> Any:
    return built("workload", choice, **SMALL.get(choice, {}))


def reads(workload: Workload, model: LoadedModel) -> dict[Phase, list[tuple[Any, ...]]]:
    """By phase, what the first linear of every block read and what the cache held, lap by lap."""
    found: dict[Phase, list[tuple[Any, ...]]] = {}
    now: list[Any] = []

    class Sizes(Unwatched):
        def start(self, laps: int) -> None:
            now.clear()

        def end_phase(self, phase: Phase, held: Any = None) -> None:
            length = None if held is None else getattr(held, "cache", held).get_seq_length()
            found.setdefault(phase, []).append((tuple(now), length))
            now.clear()

    blocks = [block.linear(block.stack.block_linears[0]) for block in model.blocks()]
    hooks = [each.register_forward_pre_hook(lambda _, inputs: now.append(tuple(inputs[0].shape))) for each in blocks]
    workload.run(TorchRunner(model), Sizes())
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("choice", ALONE)
def test_a_workload_announces_its_laps_and_starts_once(tiny: Tiny, choice: str) -> None:
    workload, told = small(choice), Told()
    workload.run(TorchRunner(tiny(EXAMPLES[workload.head])), told)
    assert told.began == 1
    assert told.announced == len(told.phases)


@pytest.mark.parametrize("choice", ALONE)
def test_excerpts_name_exactly_the_phases_of_the_run_in_their_order(tiny: Tiny, choice: str) -> None:
    workload, told = small(choice), Told()
    workload.run(TorchRunner(tiny(EXAMPLES[workload.head])), told)
    assert list(workload.representative_runs()) == list(dict.fromkeys(told.phases))


@pytest.mark.parametrize("choice", ALONE)
def test_the_last_lap_of_an_excerpt_is_the_last_of_the_run(tiny: Tiny, choice: str) -> None:
    workload = small(choice)
    model = tiny(EXAMPLES[workload.head])
    whole = reads(workload, model)
    for phase, excerpt in workload.representative_runs().items():
        assert reads(excerpt, model)[phase][-1] == whole[phase][-1]
        assert type(excerpt) is type(workload)


@pytest.mark.parametrize("choice", ALONE)
def test_items_are_what_one_run_yields_and_tokens_read_what_it_is_given(tiny: Tiny, choice: str) -> None:
    workload = small(choice)
    timing = timed(workload, TorchRunner(tiny(EXAMPLES[workload.head])), runs=1)
    laps = 1 + len(timing.tpot)
    assert timing.items == workload.items == workload.batch_size * laps
    assert workload.tokens_read == workload.batch_size * 9
    twice = small(choice).__class__(**{**SMALL[choice], "batch_size": 4})
    assert (twice.items, twice.tokens_read) == (2 * workload.items, 2 * workload.tokens_read)


@pytest.mark.parametrize("choice", choices("workload"))
def test_a_workload_is_immutable_and_says_what_it_drives(choice: str) -> None:
    workload = built("workload", choice)
    assert workload == built("workload", choice)
    assert hash(workload) == hash(built("workload", choice))
    assert workload.head in EXAMPLES
    with pytest.raises((AttributeError, TypeError)):
        workload.batch_size = 2


@pytest.mark.parametrize("choice", choices("workload"))
@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None, True])
def test_a_batch_size_is_a_positive_integer(choice: str, batch: object) -> None:
    with pytest.raises(pydantic.ValidationError, match="batch_size"):
        built("workload", choice, batch_size=batch)


@pytest.mark.parametrize("family", [family for family in sorted(TRIED) if head_of(family) != "seq2seq"])
def test_a_workload_drives_every_family_of_its_head(
    tiny: Tiny, statistics: Callable[[str], Statistics], family: str
) -> None:
    model = tiny(family).copy()
    RoundToNearest(bits=8, predicts=False).quantize_(model, statistics(family), Cpu())
    (workload,) = (small(choice) for choice in ALONE if small(choice).head == model.head)
    assert timed(workload, TorchRunner(model), runs=1).latency[0] > 0


# ---- the summary


def test_a_summary_is_made_of_percentiles_of_the_raw_samples() -> None:
    latency = tuple(float(i) for i in range(1, 101))
    steps = (0.1, 0.2, 0.3, 9.0) * len(latency)
    timing = Timing(latency, items=10, encode=(0.5, 0.7), ttft=(1.0, 2.0, 30.0), tpot=steps)
    metrics = summarise(timing, Generation(batch_size=2, prompt_tokens=8, new_tokens=5))
    assert metrics == pytest.approx(
        {
            "latency.mean": 50.5,
            "latency.p50": 50.5,
            "latency.p90": 90.1,
            "latency.p95": 95.05,
            "latency.p99": 99.01,
            "latency.stdev": np.std(latency),
            "throughput": 10 / 50.5,
            "encode": 0.6,
            "ttft": 2.0,
            "per_token": 50.5 / 5,
            "prefill_throughput": 2 * 8 / 2.0,
            "tpot": 0.25,
            "decode_throughput": 2 / 0.25,
        }
    )
    assert metrics.keys() <= METRICS.keys()


def test_metrics_that_do_not_apply_are_absent() -> None:
    found = summarise(Timing((1.0,), items=1, encode=(1.0,)), Encoding()).keys()
    assert not {"encode", "ttft", "tpot", "per_token", "prefill_throughput", "decode_throughput"} & found


def test_merging_keeps_every_sample() -> None:
    one, other = Timing((1.0,), 2, (2.0,), (3.0,), (4.0, 5.0), (6.0,)), Timing((7.0,), 2, (8.0,), (9.0,), (), (1.5,))
    merged = Timing((1.0, 7.0), 2, (2.0, 8.0), (3.0, 9.0), (4.0, 5.0), (6.0, 1.5))
    assert merge([one, other]) == merged


def test_prompts_are_the_same_for_every_model_of_a_vocabulary() -> None:
    from objectives.workloads.prompts import prompts

    first, second = prompts(stub(), 3, 50), prompts(stub(asleep(0)), 3, 50)
    assert torch.equal(first, second)
    assert isinstance(first, Tensor)
    assert first.shape == (3, 50)
    assert 0 <= int(first.min()) < int(first.max()) == 10
