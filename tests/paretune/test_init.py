"""The names of the package are those that it lists, and they are what they are elsewhere."""

from __future__ import annotations

from importlib.metadata import version

import pytest

import objectives
import paretune
from search import errors


def test_every_name_is_there_and_listed() -> None:
    assert set(paretune.__all__) <= set(dir(paretune))
    assert all(getattr(paretune, name) is not None for name in [*paretune.__all__, "open"])
    assert paretune.load is objectives.load
    assert paretune.__version__ == version("paretune")


def test_errors_are_those_of_the_command_line() -> None:
    known = {name: each for name, each in vars(errors).items() if isinstance(each, type)}
    assert all(getattr(paretune, name) is known[name] for name in paretune.__all__ if name in known)
    assert issubclass(paretune.ConfigError, paretune.ParetuneError)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'paretune' has no attribute 'serach'"):
        _ = paretune.serach


def test_a_star_does_not_replace_what_python_calls_open() -> None:
    scope: dict[str, object] = {}
    exec("from paretune import *", scope)
    assert "search" in scope
    assert "open" not in scope
