"""Settings given in Python are, word by word, those that Hydra reads from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from paretune.words import words_of
from search.config.overrides import readable
from search.errors import ConfigError

GROUPS = {"pruning", "task"}

texts = st.text(st.characters(exclude_categories=()), max_size=12) | st.text("${}[](),=:'\"\\ ~#%+-0e.tné", max_size=8)
numbers = st.integers() | st.floats(allow_nan=False)
steps = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,5}[a-z]", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts.filter(lambda text: text != "???"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.dictionaries(names, inner, min_size=1, max_size=3), max_size=2)
    ),
    max_leaves=5,
)  # fmt: skip


def composed(words: list[str]) -> Any:
    """What Hydra and OmegaConf make of the words, by dotted path."""
    config = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(readable(words)):
        assert not override.is_sweep_override()
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    return OmegaConf.to_container(config, resolve=True)


@given(values)
@example("${home}/x")
@example("\\${home}")
@example("a\\")
@example("1e-3")
@example("NULL")
@example("~")
@example("0,1")
@example(-0.0)
@example([{"pruning.ratio": 0.1, "quantization.bits": 8}])
def test_every_value_arrives_as_it_was(value: Any) -> None:
    (word,) = words_of({"task.text": value}, GROUPS)
    found = composed([word])["task"]["text"]
    assert repr(found) == repr(value)  # 1 is not 1.0, nor True


@given(st.dictionaries(steps, st.dictionaries(steps, values, min_size=1, max_size=2), min_size=1, max_size=2))
def test_nested_mappings_are_dotted_paths(tree: dict[str, dict[str, Any]]) -> None:
    words = words_of({"timing": tree}, GROUPS)
    assert len(words) == sum(map(len, tree.values()))
    assert repr(composed(words)) == repr({"timing": tree})


def test_the_space_may_be_given_by_dotted_paths() -> None:
    space = {"pruning.ratio": [0, 0.1], "quantization": {"bits": [16, 8, 4]}}
    assert words_of({"space": space}, GROUPS) == ["++space.pruning.ratio=[0,0.1]", "++space.quantization.bits=[16,8,4]"]


def test_a_name_with_a_dot_stays_a_name_elsewhere() -> None:
    words = words_of({"tradeoff": {"weights": {"latency.p95": 1.0}}}, GROUPS)
    assert composed(words) == {"tradeoff": {"weights": {"latency.p95": 1.0}}}


def test_a_group_is_chosen_by_its_name_or_by_kind() -> None:
    assert words_of({"pruning": "depth"}, GROUPS) == ["pruning=depth"]
    asked = {"pruning": {"kind": "depth", "multiple_of": 64}, "device": {"kind": 1}}
    assert words_of(asked, GROUPS) == ["pruning=depth", "++pruning.multiple_of=64", "++device.kind=1"]


def test_paths_numpy_and_tuples_are_what_they_hold() -> None:
    asked = {"home": Path("a b"), "seed": np.int64(3), "space.x": np.array([0.5, 1]), "first": (1, (2,)), "n": np.True_}
    assert words_of(asked, ()) == [
        "++home='a b'", "++seed=3", "++space.x=[0.5,1.0]", "++first=[1,[2]]", "++n=true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timing": {"precision": {1, 2}}}, r"timing\.precision: a setting is a text, .* got set"),
        ({"a": lambda rows: 0.0}, r"a: .*<lambda> is defined in a script, a notebook or another function"),
        ({"a": len}, r"a: a function expected, got builtin_function_or_method"),
        ({"timing precision": 1}, r"'timing precision': a key is a name or a dotted path"),
        ({"a": [{"é": 1}]}, r"a: 'é' cannot be the key"),
        ({"a": [{"1": 1}]}, r"a: '1' cannot be the key"),
    ],
)
def test_what_no_setting_has_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        words_of(settings, GROUPS)
