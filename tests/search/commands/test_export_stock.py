"""``paretune export format=...`` refuses what no stock format holds before anything is built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from objectives.runtime.llama_cpp import LlamaCpp
from objectives.runtime.torch import Torch
from objectives.workloads.generation import Generation
from search.commands.export import write_stock
from search.errors import ConfigError
from tests.objectives.runtimes import candidate, rounded


@pytest.mark.parametrize("format", ["gguf", "hf"])
def test_weights_that_an_engine_rounded_by_itself_are_in_no_stock_format(format: str, tmp_path: Path) -> None:
    chosen = candidate(rounded(16), LlamaCpp(rounding="q4_0", library="fetched"), Generation())
    space = SimpleNamespace(candidate=lambda _params: chosen)
    study: Any = SimpleNamespace(config=SimpleNamespace(space=space, home=tmp_path))
    record: Any = SimpleNamespace(params={})
    with pytest.raises(ConfigError, match=r"runtime\.rounding=q4_0 .* format=engine") as caught:
        write_stock(study, record, tmp_path / "out", format)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "bits", "refused"), [("gguf", 8, True), ("compressed-tensors", 8, True), ("hf", 16, False)]
)
def test_inputs_that_were_not_rounded_when_it_was_measured_are_not_rounded_in_the_export(
    format: str, bits: int, refused: bool, tmp_path: Path
) -> None:
    chosen = candidate(rounded(bits, scheme="weight_only"), Torch(), Generation())
    config = SimpleNamespace(space=SimpleNamespace(candidate=lambda _params: chosen), home=tmp_path, problem=None)
    study: Any = SimpleNamespace(config=config)
    record: Any = SimpleNamespace(params={})
    with pytest.raises(ConfigError if refused else AttributeError) as caught:  # else it goes on without a problem
        write_stock(study, record, tmp_path / "out", format)
    assert ("quantization.scheme=w8a8" in str(caught.value)) is refused
