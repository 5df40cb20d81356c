"""Bits of keys and values as a search variable: the baseline's, who leaves the space, and studies from before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from search.config.study_config import build_config
from search.errors import ConfigError
from tests.search.conftest import composed

CI = ("experiment=ci_tiny", "device=cpu")
SEARCHED = "+space.kv.bits=[16,8,4]"
LLAMA = "objectives.runtime.llama_cpp.LlamaCpp"


def reasons(*words: str) -> dict[tuple[Any, ...], str]:
    """Why cells are left out, by kv.bits and runtime."""
    one = ("space.pruning.ratio=[0.0]", "space.quantization.bits=[16]", "space.workload.batch_size=[1]")
    space = build_config(composed(*CI, *one, SEARCHED, *words)).space
    paths = [axis.path for axis in space.axes]
    places = [paths.index("kv.bits"), paths.index("runtime")]
    return {tuple(values[place] for place in places): reason for values, reason in space.outside.items()}


def test_the_baseline_keeps_16_bits_and_fewer_are_harder() -> None:
    space = build_config(composed(*CI, SEARCHED)).space
    axis = next(axis for axis in space.axes if axis.path == "kv.bits")
    assert space.baseline()["kv.bits"] == 16
    assert axis.strength is not None
    assert (axis.strength.neutral, axis.strength.harder, axis.strength.uneven) == (16, -1, True)
    assert space.candidate({**space.baseline(), "kv.bits": 8}).kv.bits == 8
    fixed = build_config(composed(*CI, "kv.bits=8")).space
    assert fixed.baseline_candidate().kv.bits == 16


def test_torch_and_llama_cpp_take_all_widths_and_others_say_why_not() -> None:
    found = reasons("+space.runtime.name=[torch,llama_cpp,openvino,torch_compile]")
    assert found.keys() == {(bits, name) for bits in (8, 4) for name in ("openvino", "torch_compile")}
    assert found[8, "openvino"] == "openvino: keeps keys and values in a way of its own: kv.bits=16"


def test_encoders_have_none_to_round() -> None:
    space = build_config(composed("experiment=minilm_retrieval", "device=cpu", SEARCHED)).space
    assert set(space.outside.values()) == {"torch: keys and values of encoders stay as they are: kv.bits=16"}
    assert len(space.outside) == len(space) * 2 // 3


@pytest.mark.parametrize("word", ["kv.bits=6", "+space.kv.bits=[16,6]"])
def test_other_widths_are_refused_with_those_there_are(word: str) -> None:
    with pytest.raises(ConfigError, match=r"kv\.bits: expected one of 16, 8, 4, got 6"):
        build_config(composed(*CI, word))


# ---- studies that were begun before


def before_there_were_any(*words: str) -> dict[str, Any]:
    """A configuration as it was stored then: no part ``kv``, and llama.cpp with bits of its own."""
    resolved: dict[str, Any] = json.loads(json.dumps(composed(*CI, *words)))
    del resolved["kv"]
    resolved["runtimes"]["llama_cpp"]["cache_bits"] = 16
    return resolved


@pytest.mark.parametrize("words", [(), ("+space.runtime.name=[torch,llama_cpp]",)])
def test_a_study_from_before_opens_under_its_name_with_its_definition(words: tuple[str, ...]) -> None:
    now, stored = build_config(composed(*CI, *words)), build_config(before_there_were_any(*words))
    assert now.name == stored.name
    assert now.definition == stored.definition
    assert "kv" not in now.definition
    if words:
        assert now.definition["runtimes"]["llama_cpp"]["cache_bits"] == 16
    assert stored.space.baseline_candidate().kv.bits == 16


def test_another_width_or_axis_is_another_study() -> None:
    names = {build_config(composed(*CI, *words)).name for words in ((), ("kv.bits=8",), (SEARCHED,))}
    assert len(names) == 3


def test_the_setting_that_is_gone_is_refused_with_the_one_in_its_place() -> None:
    with pytest.raises(ConfigError, match=r"runtimes\.llama_cpp\.cache_bits: .* write kv\.bits=8 instead"):
        build_config(composed(*CI, "+runtimes.llama_cpp.cache_bits=8"))
