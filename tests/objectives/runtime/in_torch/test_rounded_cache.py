"""Keys and values in 8 or 4 bits: what is kept, what is attended to, and that the same holds for every decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from objectives.devices.allocations import cache_bytes
from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.measuring.footprint import footprint
from objectives.models import LoadedModel
from objectives.packing.weighing import block_weights
from objectives.protocols.key_values import KeyValueBits
from objectives.runtime.engine_support import keeps
from objectives.runtime.in_torch import runner as runner_file
from objectives.runtime.in_torch.rounded_cache import rounded, rounded_cache, widened
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.torch import Torch
from objectives.workloads.generation import Generation
from tests.objectives.families import DECODERS
from tests.objectives.runtimes import candidate
from tests.objectives.runtimes import rounded as storing

Tiny = Callable[[str], LoadedModel]
WIDTHS = (8, 4)
each_width = pytest.mark.parametrize("bits", WIDTHS)
each_decoder = pytest.mark.parametrize("family", DECODERS)


def states(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def ids_of(rows: int, tokens: int) -> Tensor:
    return torch.randint(2, 128, (rows, tokens), generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.inference_mode():
        yield


# ---- rounding


@pytest.mark.parametrize("channels", [64, 96, 48, 16])
def test_no_value_is_further_off_than_half_a_step_at_8_bits(channels: int) -> None:
    values = states(2, 3, 5, channels)
    before = values.clone()
    codes, scales = rounded(values, 8)
    assert (codes.shape, codes.dtype, scales.shape) == (values.shape, torch.int8, (2, 3, 5, 1))
    assert bool(((widened((codes, scales), 8) - values).abs() <= 0.501 * scales).all())
    assert torch.equal(values, before)


@pytest.mark.parametrize(("channels", "groups"), [(64, 2), (96, 3), (48, 1), (16, 1)])
def test_at_4_bits_two_codes_share_a_byte_and_a_group_is_off_by_half_a_step_on_average(
    channels: int, groups: int
) -> None:
    """Rotated, so the error is spread over the group; its norm is that of steps of the group's own scale."""
    values = states(2, 3, 500, channels)
    before = values.clone()
    codes, scales = rounded(values, 4)
    assert (codes.shape[-1], codes.itemsize, scales.shape[-1]) == (channels // 2, 1, groups)
    off = (widened((codes, scales), 4) - values).square().mean(dim=-1)
    even = scales.square().mean(dim=-1) / 12  # of errors that are spread evenly over a step
    assert float((off / even).mean()) == pytest.approx(1.0, abs=0.1)
    assert torch.equal(values, before)


def test_a_channel_that_towers_over_the_others_does_not_take_their_steps() -> None:
    """As keys have some: without the rotation the steps of its group would be those of the largest alone."""
    values = states(2, 3, 50, 64)
    values[..., 5] *= 30
    low, high = values.unflatten(-1, (2, 32)).aminmax(dim=-1, keepdim=True)
    scales = torch.where(high > -low, high, low) / -8
    plain = ((values.unflatten(-1, (2, 32)) / scales).round().clamp(-8, 7) * scales).flatten(-2)
    others = torch.arange(64) != 5
    found = widened(rounded(values, 4), 4)
    assert float((found - values)[..., others].norm()) < 0.8 * float((plain - values)[..., others].norm())


@each_width
def test_zeros_stay_zeros(bits: int) -> None:
    assert torch.equal(widened(rounded(torch.zeros(1, 2, 3, 32), bits), bits), torch.zeros(1, 2, 3, 32))


@each_width
def test_a_token_is_rounded_alike_whatever_stands_beside_it(bits: int) -> None:
    values = states(2, 3, 7, 64, dtype=torch.bfloat16)
    together, alone = rounded(values, bits), rounded(values[1:, 1:2, 4:5], bits)
    assert torch.equal(together[0][1:, 1:2, 4:5], alone[0])
    assert torch.equal(together[1][1:, 1:2, 4:5], alone[1])


# ---- the cache of a decoder


def as_reference(bits: int) -> Callable[[Any, int], DynamicCache]:
    """A plain cache into which values go that were rounded before: the naive way, without saving a byte."""

    def wrapped(update: Any) -> Any:
        def updated(self: Any, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
            return update(self, *(widened(rounded(each, bits), bits) for each in (keys, values)), *args, **kwargs)

        return updated

    class Plain(DynamicLayer):  # type: ignore[no-untyped-call]
        update = wrapped(DynamicLayer.update)

    class Sliding(DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
        update = wrapped(DynamicSlidingWindowLayer.update)

    def made(config: Any, _bits: int) -> DynamicCache:
        cache = DynamicCache(config=config)
        for place, layer in enumerate(cache.layers):
            sliding = isinstance(layer, DynamicSlidingWindowLayer)
            cache.layers[place] = Sliding(layer.sliding_window) if sliding else Plain()  # type: ignore[attr-defined]
        return cache

    return made


@each_width
@each_decoder
def test_every_pass_attends_to_rounded_keys_and_values(
    tiny: Tiny, family: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once and token by token it answers as a plain cache that is filled with rounded values.

    To the bit at 8 bits; at 4 the products that rotate back depend on how many tokens there are.
    """
    ids, runner = ids_of(2, 20), TorchRunner(tiny(family), kv_bits=bits)

    def answers() -> list[Tensor]:
        logits, cache = runner.prefill(ids[:, :12])
        found = [runner.logits(ids), logits]
        for place in range(12, 20):
            logits, cache = runner.step(ids[:, place : place + 1], cache)
            found.append(logits)
        return found

    ours = answers()
    monkeypatch.setattr(runner_file, "rounded_cache", as_reference(bits))
    for one, other in zip(ours, answers(), strict=True):
        off = float((one.float() - other.float()).norm() / other.float().norm())
        assert off == 0 if bits == 8 else off < 0.02
    assert not torch.equal(ours[0], TorchRunner(tiny(family)).logits(ids))


@each_decoder
def test_a_token_takes_the_bytes_that_the_metric_says(tiny: Tiny, family: str) -> None:
    model, ids = tiny(family), ids_of(1, 6)
    per_token = {}
    for bits in (16, *WIDTHS):
        runner = TorchRunner(model, kv_bits=bits)
        cache = runner.prefill(ids)[1]
        per_token[bits] = runner.weights(block_weights(model))["kv_bytes_per_token"]
        assert cache_bytes(cache) == 6 * per_token[bits]
    values, vectors = per_token[16] / 2, sum(2 * layer.keys.shape[1] for layer in cache.layers)
    channels = values / vectors
    assert per_token[8] == values + 2 * vectors
    assert per_token[4] == values / 2 + 2 * vectors * (channels // 32 if channels % 32 == 0 else 1)


@each_width
def test_padding_and_other_rows_change_nothing(tiny: Tiny, bits: int) -> None:
    runner, ids = TorchRunner(tiny("llama"), kv_bits=bits), ids_of(2, 9)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    logits, cache = runner.prefill(ids, mask)
    alone, short = runner.prefill(ids[1:, 4:])
    torch.testing.assert_close(logits[1:].float(), alone.float(), atol=0.05, rtol=0.05)
    chosen = runner.select(cache, [1, 0, 1])
    token = torch.tensor([[5], [5], [5]])
    after = runner.step(token, chosen)[0]
    assert torch.equal(after[0], after[2])
    torch.testing.assert_close(after[:1].float(), runner.step(token[:1], short)[0].float(), atol=0.05, rtol=0.05)


@each_width
def test_a_window_keeps_no_more_than_the_next_token_sees(tiny: Tiny, bits: int) -> None:
    runner = TorchRunner(tiny("gemma2"), kv_bits=bits)
    cache = runner.prefill(ids_of(2, 20))[1]
    windows = [getattr(layer, "sliding_window", None) for layer in cache.layers]
    assert set(windows) == {8, None}
    assert [layer.keys.shape[-2] for layer in cache.layers] == [20 if window is None else 7 for window in windows]


def test_a_layer_that_keeps_something_else_is_refused(tiny: Tiny) -> None:
    config = tiny("llama").module.config
    kinds = ["full_attention", "linear_attention", "full_attention"]
    odd = type(config).from_dict({**config.to_dict(), "layer_types": kinds})
    with pytest.raises(Unsupported, match=r"kv\.bits: a layer of this model keeps a Linear\w+, which is not rounded"):
        rounded_cache(odd, 8)


# ---- memory


def llama(layers: int) -> LoadedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128, hidden_size=128, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    module = LlamaForCausalLM(config).to(torch.bfloat16).eval().requires_grad_(False)
    return LoadedModel(module, None, "causal_lm")


def test_the_peak_of_a_run_falls_as_predicted() -> None:
    """By torch's allocator: eight layers of 203 tokens, of which one is wide at a time."""
    model, workload = llama(8), Generation(batch_size=2, prompt_tokens=200, new_tokens=4)
    decode = {}
    for bits in (16, *WIDTHS):
        memory = TorchRunner(model, kv_bits=bits).memory(workload, Cpu(threads=1))
        predicted = footprint(model, workload, kv_bits=bits)
        assert memory.cache == predicted.cache
        decode[bits] = memory.peaks["decode"]
        assert predicted.peaks["decode"] == pytest.approx(decode[bits], rel=0.05, abs=16 * 1024)
        assert predicted.peaks["prefill"] == pytest.approx(memory.peaks["prefill"], rel=0.1, abs=64 * 1024)
    layer = 2 * 2 * 203 * 128 * 2  # bytes of keys and values of all rows, in 16 bits
    assert decode[16] - decode[8] > 2 * layer
    assert decode[8] - decode[4] > layer


# ---- who can


def test_a_runtime_that_says_nothing_keeps_16_bits() -> None:
    workload = Generation()
    asked = candidate(storing(16), Torch(), workload)
    assert keeps(asked, "causal_lm") is None
    eight = replace(asked, kv=KeyValueBits(bits=8))
    assert keeps(eight, "causal_lm") is None
    assert keeps(eight, "encoder") == "keys and values of encoders stay as they are: kv.bits=16"
    assert keeps(eight, "seq2seq") == "keys and values of encoder-decoders stay as they are: kv.bits=16"
    guessing = replace(eight, runtime=Torch(prompt_lookup=3))
    assert keeps(guessing, "causal_lm") == "keeps keys and values in 16 bits, not in 8: kv.bits=16"
