"""What is shown while one model is scored: in a terminal of 80 columns, in ASCII, and where there is no terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from objectives.tasks.progress import SoFar
from search.study import progress
from search.study.progress import PlainProgress, make_progress, sentence


@pytest.mark.parametrize(
    ("far", "text"),
    [
        (SoFar(320, 1000, 20), "scoring 320 of 1,000, about 42 s left"),
        (SoFar(320.9, 1000, 20), "scoring 320 of 1,000, about 42 s left"),
        (SoFar(320, 1000, 20, may_end_early=True), "scoring 320 of 1,000, at most 42 s left"),
        (SoFar(10, 20_000, 30), "scoring 10 of 20,000, about 1000 min left"),
        (SoFar(2.5, 10, 30, domains=True), "scoring 2 of 10 domains, about 90 s left"),
        (SoFar(64, 64, 30), "scoring 64 of 64, about 0 s left"),
        (SoFar(320, 1000, 4.9), "scoring 320 of 1,000"),
        (SoFar(0, 1000, 300), "scoring 0 of 1,000"),
        (SoFar(0, 0, 300), "scoring for 5 min"),
        (SoFar(1280, 0, 40), "scoring for 40 s, 1,280 texts read"),
    ],
)
def test_the_sentence_tells_the_rest_at_the_rate_so_far(far: SoFar, text: str) -> None:
    assert sentence(far) == text.replace("about 90 s", "about 2 min")


def lines_of(
    make_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, encoding: str, *show: SoFar | None
) -> list[str]:
    """The status line in a terminal of 80 columns after each of ``show``."""
    shown = Console(file=io.StringIO(), width=80, force_terminal=True, legacy_windows=False)
    monkeypatch.setattr(progress, "console", lambda stderr: shown)
    monkeypatch.setenv("TERM", "xterm")
    found = []
    with make_progress(make_config(f"study_name={name}", "n_trials=400")) as live:
        live.stage("pruning.ratio=0.3")
        for far in show:
            live.scoring(far)
            raw = io.BytesIO()
            stream = io.TextIOWrapper(raw, encoding=encoding, errors="paretune.replaced")
            Console(file=stream, width=80).print(live.bar.get_renderable())
            stream.flush()
            found.append(raw.getvalue().decode(encoding).removesuffix("\n"))
    return found


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    "far",
    [
        SoFar(320, 1000, 20),
        SoFar(12_320, 100_000, 900, may_end_early=True),
        SoFar(2.5, 10, 30, domains=True),
        SoFar(1_000_000, 0, 4000),
    ],
)
def test_the_sentence_stands_whole_in_a_line_of_80_columns(
    far: SoFar, encoding: str, make_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "the_long_name_of_a_study_of_my_own_classifier"):
        line, after = lines_of(make_config, monkeypatch, name, encoding, far, None)
        assert sentence(far) in line
        assert re.search(r" 0/400 0:00:\d\d$", line)
        assert "\n" not in line
        assert len(line) <= 80
        assert "..." not in line
        assert "pruning.ratio=0.3" in after or len(name) > 1
        assert "scoring" not in after


def test_the_name_of_the_study_is_kept_where_there_is_room(
    make_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = SoFar(320, 1000, 20)
    assert f"mine: {sentence(far)}" in lines_of(make_config, monkeypatch, "mine", "utf-8", far)[0]


def test_without_a_terminal_slow_scoring_gets_a_line_every_30_seconds_and_quick_scoring_none(
    make_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("search.study.progress.time.monotonic", lambda: now[0])
    plain = PlainProgress(make_config())
    for begin, scored in ((0, 29), (40, 95), (95, 130)):  # the seconds at which a scoring begins and ends
        for second in range(begin, scored):
            now[0] = 100.0 + second
            plain.scoring(SoFar(1.0 + second - begin, 1000, float(second - begin)))
        plain.scoring(None)
    said = capsys.readouterr().err.splitlines()
    assert said == ["scoring 31 of 1,000, about 16 min left", "scoring 31 of 1,000, about 16 min left"]
