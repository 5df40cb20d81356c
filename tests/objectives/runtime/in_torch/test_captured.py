"""Recorded passes without a GPU: Python runs once, what it asked of torch is replayed, as a CUDA graph does.

``Replayed`` stands in for :class:`objectives.runtime.in_torch.captured.Recorded`: it warms up, takes note of the
operations of one pass, undoes what that changed, and runs the operations from then on, on the same tensors. What looks
at a value meanwhile fails, as it does while a stream is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers.utils.import_utils as transformers_utils
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from objectives.devices.cpu import Cpu
from objectives.errors import Unsupported
from objectives.runtime.in_torch import captured
from objectives.runtime.in_torch.captured import Captured
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.in_torch.static_cache import StaticCacheRunner
from objectives.workloads.generation import Generation
from tests.conftest import head_of
from tests.objectives.conftest import Tiny
from tests.objectives.families import DECODERS, TRIED

SLIDING = ("gemma2", "gemma3_text", "mistral")
LOOKS_AT_VALUES = ("opt",)
IDS = torch.arange(2, 14).view(2, 6)


class Recording(TorchDispatchMode):
    """Takes note of every operation that torch runs, its arguments and what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, operation: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
        if torch.Tag.data_dependent_output in operation.tags:
            raise RuntimeError(f"{operation} looks at a value")
        found = operation(*given, **(named or {}))
        self.steps.append((operation, given, named or {}, _in(found)))
        return found

    def replay(self) -> None:
        """Run the operations on the same tensors, and write what they give where it was."""
        for operation, given, named, places in self.steps:
            for place, found in zip(places, _in(operation(*given, **named)), strict=True):
                if place.data_ptr() != found.data_ptr():  # neither a view nor changed in place
                    place.copy_(found)


def _in(found: Any) -> list[Tensor]:
    """The tensors of what an operation gives."""
    return [each for each in tree_leaves(found) if isinstance(each, Tensor)]


class Replayed:
    """See the module."""

    def __init__(self, run: Callable[[Tensor], Tensor], ids: Tensor, rewind: Callable[[], None], pool: Any) -> None:
        self._ids, held = ids.clone(), _tensors(run)
        for _ in range(captured.WARMUPS):
            run(self._ids)
            rewind()
        held = _tensors(run)
        before = [tensor.clone() for tensor in held]
        with pytest.MonkeyPatch.context() as patch, Recording() as self._recording:
            patch.setattr(transformers_utils, "is_cuda_stream_capturing", lambda: True)
            self._out = run(self._ids)
        for tensor, old in zip(held, before):
            tensor.copy_(old)

    def __call__(self, ids: Tensor) -> Tensor:
        self._ids.copy_(ids)
        self._recording.replay()
        return self._out


def _tensors(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Of the cache that ``run`` writes to."""
    cells = [cell.cell_contents for cell in getattr(run, "__closure__", None) or ()]
    layers = [layer for cell in cells for layer in getattr(cell, "layers", ())]
    names = ("keys", "values", "cumulative_length")
    return [getattr(layer, name) for layer in layers if layer.is_initialized for name in names]


@pytest.fixture(autouse=True)
def replaying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(captured, "Recorded", Replayed)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", object)
    with torch.inference_mode():
        yield


def written(model: Any, ids: Tensor, tokens: int = 5) -> list[list[int]]:
    out = ids.new_empty(len(ids), tokens)
    model.generate(ids, out)
    found: list[list[int]] = out.tolist()
    return found


WRITERS = [name for name in DECODERS if name not in (*SLIDING, *LOOKS_AT_VALUES)]


@pytest.mark.parametrize("family", WRITERS)
def test_a_recorded_decoder_writes_what_a_plain_one_writes(tiny: Tiny, family: str) -> None:
    model = tiny(family).copy()
    model.module.float()  # in bf16 two tokens are as likely, and the order of sums chooses
    recorded, fixed, plain = Captured(model).check(), StaticCacheRunner(model), TorchRunner(model)
    for ids in (IDS, IDS + 40, IDS[:, :3], IDS[:1], IDS):  # anew, of other shapes, and the first one again
        assert written(recorded, ids) == written(fixed, ids) == written(plain, ids)


@pytest.mark.parametrize("family", [name for name in TRIED if head_of(name) == "encoder"])
def test_a_recorded_encoder_gives_what_a_plain_one_gives(tiny: Tiny, family: str) -> None:
    plain = TorchRunner(tiny(family))
    recorded = Captured(plain.model).check()
    for ids in (IDS, IDS + 30, IDS[:, :4], IDS):
        assert torch.allclose(recorded.encode(ids), plain.encode(ids), atol=1e-5)
    mask = torch.ones_like(IDS)
    mask[0, 4:] = 0
    assert torch.equal(recorded.encode(IDS, mask), plain.encode(IDS, mask))


@pytest.mark.parametrize("family", SLIDING)
def test_a_cache_that_slides_is_refused(tiny: Tiny, family: str) -> None:
    with pytest.raises(Unsupported, match="caches that slide are not recorded"):
        Captured(tiny(family)).check()


@pytest.mark.parametrize("family", LOOKS_AT_VALUES)
def test_a_pass_that_looks_at_values_is_refused(tiny: Tiny, family: str) -> None:
    with pytest.raises(Unsupported, match="cannot be recorded"):
        Captured(tiny(family)).check()


def test_a_recorded_pass_that_is_not_the_plain_one_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Replayed.__call__
    monkeypatch.setattr(Replayed, "__call__", lambda self, ids: wrong(self, (ids + 1) % 96))
    with pytest.raises(Unsupported, match="do not give what plain ones give"):
        Captured(tiny("llama")).check()


def test_runs_of_one_length_with_other_prompts_have_graphs_of_their_own(tiny: Tiny) -> None:
    recorded, plain = Captured(tiny("llama")), TorchRunner(tiny("llama"))
    for prompt, new in ((6, 4), (1, 9), (4, 6), (6, 4)):
        assert written(recorded, IDS[:, :prompt], new) == written(plain, IDS[:, :prompt], new)
    assert len(recorded.shapes) == 3


def test_the_oldest_shape_goes_first(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "KEPT", 2)
    recorded = Captured(tiny("llama"))
    for prompt in (3, 4, 3, 5):
        written(recorded, IDS[:, :prompt], 2)
    assert list(recorded.shapes) == [(2, 3, 5), (2, 5, 7)]


@pytest.mark.parametrize("kind", [StaticCacheRunner, Captured])
def test_the_memory_of_a_fixed_cache_is_that_of_the_whole_run(tiny: Tiny, kind: type[StaticCacheRunner]) -> None:
    """Its cache is whole while the prompt is read, which an excerpt of one new token would not see.

    The prompt is so short that nothing else takes as much.
    """
    model, workload = tiny("llama"), Generation(prompt_tokens=2, new_tokens=1022)
    runner = kind(model)
    found = runner.memory(workload, Cpu())
    plain = Cpu().memory(TorchRunner(model), Generation(prompt_tokens=1023, new_tokens=1))
    whole = plain.cache * 1024 // 1023
    assert found.cache == whole
    assert found.peaks["prefill"] > whole
    assert not getattr(runner, "shapes", {})
