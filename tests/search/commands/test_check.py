"""``paretune check`` says what it saw, or in one line what is wrong, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.cli import main

BASE = ("experiment=ci_tiny", "device=cpu", "executor=in_process")


def check(capsys: pytest.CaptureFixture[str], verb: str, *more: str) -> tuple[int, str, str]:
    capsys.readouterr()  # what libraries said when fixtures imported them
    code = main([verb, *BASE, *more])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(("verb", "more"), [("check", ()), ("plan", ("check=true",))])
def test_a_check_says_what_it_saw_and_leaves_nothing(
    verb: str, more: tuple[str, ...], capsys, tiny_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = (f"model.path={tiny_folder('llama')}", "model=causal_lm", "task.tokens=32")
    code, out, err = check(capsys, verb, *model, *more)
    assert (code, err) == (0, "")
    wanted = ("llama, 0.1 million parameters, 128 tokens, 2048 positions, pad token", "the linears of 3 blocks",
              "Calibration task: 4 rows, 128 tokens.", "LanguageModeling scored examples", "accuracy 0.", "perplexity",
              "One run of Generation at batch size 1: ", "MiB with weights.")  # fmt: skip
    assert [words for words in wanted if words not in out] == [], out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("task.documents=5000",), "asked for"),
        (("+task.corpus.path=mine.txt",), "task.corpus.path: unknown key"),
        (
            ("~task", "+task={_target_: tests.search.commands.test_check.Floating}", "allow_targets=[tests.]"),
            "got float 0.5",
        ),
    ],
)
def test_what_is_wrong_is_one_line(more, words, capsys, tiny_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = check(capsys, "check", f"model.path={tiny_folder('llama')}", "model=causal_lm", *more)
    assert (code, out) == (2, "")
    assert err.startswith("paretune: ")
    assert err.count("\n") == 1
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_a_text_of_few_lines_is_checked(capsys, tiny_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Hello world, this is short.\nAnother line here.\n")
    asked = (f"model.path={tiny_folder('llama')}", "model=causal_lm", "task=text", "task.data=a.txt")
    code, _, err = check(capsys, "check", *asked)
    assert code == 2
    key = re.search(r"fewer than one row of 256; give (task\.calibration_tokens=\d+), or more texts", err)
    assert key is not None, err
    code, out, err = check(capsys, "check", *asked, key[1])
    assert (code, "Text scored examples a.txt, line " in out) == (0, True), err


def test_a_check_is_asked_with_true_or_false(capsys) -> None:
    assert "check: true or false, got 'yes'" in check(capsys, "plan", "check=yes")[2]


class Floating:
    """A task whose score is no score."""

    head = "causal_lm"

    def calibration(self, model):
        import torch

        return {"a": [torch.arange(32).view(2, 16)]}

    def evaluate(self, model):
        return 0.5
