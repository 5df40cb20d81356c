"""``paretune plan`` says, before anything runs, which stock engines load what pruning may leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import main


@pytest.fixture
def planned(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of a plan with two layouts."""
    monkeypatch.setattr("sys.argv", ["paretune"])
    words = ["experiment=ci_tiny", "device=cpu", f"home={tmp_path}"]
    assert main(["plan", *words, "+space.pruning.layout=[uniform,deci]"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("pruning.layout=")]


def test_every_layout_of_the_space_has_a_line_with_its_engines(planned: list[str]) -> None:
    uniform, deci = planned
    told = "pruning.layout=deci: loaded by vLLM (hf), llama.cpp (gguf); by their code, not tried: SGLang (hf)"
    assert deci.startswith(told)
    assert "not by transformers" in deci
    assert uniform.startswith("pruning.layout=uniform: loaded by transformers (hf), vLLM (hf)")


def test_a_pruner_without_layouts_has_none_to_list_and_none_to_search(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["paretune"])
    words = ["experiment=ci_tiny", "device=cpu", f"home={tmp_path}", "pruning=wanda"]
    assert main(["plan", *words]) == 0
    assert "layout" not in capsys.readouterr().out
    assert main(["plan", *words, "+space.pruning.layout=[free]"]) == 2
    assert "space.pruning.layout: no such setting; pruning has: pattern, ratio" in capsys.readouterr().err


def test_a_study_at_the_default_layout_is_named_as_before_there_were_layouts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["paretune"])
    words = ["experiment=ci_tiny", "device=cpu", f"home={tmp_path}"]
    names = []
    for more in ([], ["pruning.layout=free"], ["~pruning.layout"], ["pruning.layout=uniform"]):
        assert main(["plan", *words, *more]) == 0
        names.append(capsys.readouterr().out.splitlines()[0].strip())
    assert names[0] == names[1] == names[2] != names[3]
