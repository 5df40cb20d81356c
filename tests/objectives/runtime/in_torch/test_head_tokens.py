"""The head gets the tokens that are asked for alone, as a tensor of its own; a prompt asks for its last."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from objectives.runtime.in_torch.head_tokens import tokens_from
from objectives.runtime.in_torch.runner import TorchRunner
from tests.objectives.conftest import Tiny

IDS = torch.randint(2, 90, (3, 7), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("mask", [None, torch.tensor([[1] * 7, [0] * 2 + [1] * 5, [1] * 7])])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_of_several_rows_is_read_with_a_head_of_one_token(
    tiny: Tiny, family: str, mask: torch.Tensor | None
) -> None:
    model = tiny(family).copy()
    model.module.float()
    runner, head = TorchRunner(model), model.module.get_output_embeddings()
    seen: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _head, inputs, _output: seen.append(inputs[0]))
    with torch.inference_mode():
        logits, cache = runner.prefill(IDS, mask)
        hook.remove()
        places = None if mask is None else (mask.cumsum(dim=1) - 1).clamp_min(0)
        wanted = model.module(input_ids=IDS, attention_mask=mask, position_ids=places).logits[:, -1]
        again, _ = runner.step(logits.argmax(dim=-1, keepdim=True), cache)
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert [tuple(each.shape) for each in seen] == [(3, 1, model.module.config.hidden_size)]
    assert seen[0].is_contiguous()
    assert not head._forward_pre_hooks
    assert again.shape == wanted.shape


def test_the_head_is_as_it_was_also_after_an_error() -> None:
    head: Any = torch.nn.Linear(4, 2)
    with tokens_from(head, -1):
        assert head(torch.ones(3, 5, 4)).shape == (3, 1, 2)
    with pytest.raises(RuntimeError), tokens_from(head, -1):
        head(torch.ones(3, 5, 7))
    assert head(torch.ones(3, 5, 4)).shape == (3, 5, 2)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_logits_from_a_place_on_are_those_of_the_whole_and_cost_no_more(tiny: Tiny, family: str) -> None:
    model = tiny(family).copy()
    model.module.float()
    runner, head = TorchRunner(model), model.module.get_output_embeddings()
    seen: list[int] = []
    with torch.inference_mode():
        whole = runner.logits(IDS)
        hook = head.register_forward_hook(lambda _head, inputs, _output: seen.append(inputs[0].shape[1]))
        some = runner.logits(IDS, 5)
        hook.remove()
    assert torch.allclose(some, whole[:, 5:], atol=1e-5)
    assert seen == [2]
