"""What is wrong with a value is said of the value itself: of the item of a list, not of the list, and in our words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from objectives.settings import FORBID, Count, Name, Texts
from search.errors import ConfigError
from search.space.instantiate import SHOWN, build

HERE = (f"{__name__}.",)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Settings:
    names: Name | Texts = "names"
    stop: tuple[Name, ...] = ()
    band: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    few: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)] = (1,)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    widths: tuple[Literal[8, 4], ...] = ()
    own: Callable[..., float] | None = None
    tokens: Count | None = None


def made(**given: Any) -> Settings:
    built: Settings = build({"_target_": f"{__name__}.Settings", **given}, "task", HERE)
    return built


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ["", "b"]}, "task.names[0]: expected a non-empty text, got ''"),
        ({"names": ["a", None]}, "task.names[1]: expected a non-empty text, got None"),
        ({"names": ""}, "task.names: expected a non-empty text or a list, got ''"),
        ({"names": {"a": 1}}, "task.names: expected a non-empty text or a list, got {'a': 1}"),
        ({"stop": ["a", ""]}, "task.stop[1]: expected a non-empty text, got ''"),
        ({"stop": "a"}, "task.stop: expected a list, got 'a'"),
        ({"band": [0.9, 1.0, 1.1]}, "task.band: expected a list of 2 or null, got [0.9, 1.0, 1.1]"),
        ({"band": [0.9]}, "task.band: expected a list of 2 or null, got [0.9]"),
        ({"band": [0.9, -1]}, "task.band[1]: expected a number >= 0, got -1"),
        ({"few": []}, "task.few: expected a list of at least 1 and at most 3, got []"),
        ({"few": [1, 0]}, "task.few[1]: expected an integer >= 1, got 0"),
        ({"weights": {"a": 0}}, "task.weights.a: expected a number > 0, got 0"),
        ({"widths": [8, 5]}, "task.widths[1]: expected one of 8, 4, got 5"),
        ({"own": 3}, "task.own: expected a function (module:name) or null, got 3"),
        ({"tokens": True}, "task.tokens: expected an integer >= 1 or null, got True"),
        ({"token": 1}, "task.token: unknown key (did you mean tokens?); known: names, "),
    ],
)
def test_the_value_that_is_wrong_is_named_with_what_is_accepted_there(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(**given)
    assert str(raised.value).startswith(message)


def test_truth_values_are_no_texts_and_numbers_are() -> None:
    assert made(names=[1, 2.5, "a"]).names == ("1", "2.5", "a")
    assert made(names=["true", "false"]).names == ("true", "false")
    with pytest.raises(ConfigError) as raised:
        made(names=[True, 3, False, "maybe"])
    assert str(raised.value) == (
        "task.names[0]: expected a non-empty text, got True; in quotes it is a text: "
        """'task.names=["true",3,"false",maybe]'"""
    )


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as raised:
        made(tokens="x" * 10_000)
    assert str(raised.value).endswith("x...")
    assert len(str(raised.value)) < SHOWN + 100
