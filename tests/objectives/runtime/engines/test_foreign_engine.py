"""Engines in another interpreter: what crosses the socket, what the process sees, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from objectives.devices import helpers
from objectives.errors import ProcessLost, Unsupported
from objectives.runtime.engines import foreign_engine
from objectives.runtime.engines.foreign_engine import ForeignDecoder
from objectives.runtime.engines.masks import causal
from objectives.types import Phase

VOCABULARY = 16
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (3, 9))


@pytest.fixture(autouse=True)
def _script_of_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the child beside this file, with the protocol's file beside it, as an engine's script has it."""
    protocol = Path(foreign_engine.__file__).parents[1] / "foreign" / "json_lines.py"
    for source in (protocol, Path(__file__).with_name("foreign_child.py")):
        (tmp_path / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(foreign_engine, "_SCRIPTS", tmp_path)


def opened(**flags: Any) -> ForeignDecoder:
    return ForeignDecoder("foreign_child.py", Path(sys.executable), Path("somewhere"), flags, {"MARK": "1"})


def counts(text: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.bincount(text, minlength=VOCABULARY).astype(np.float32)


def test_logits_of_any_places_come_back_bit_by_bit_and_a_cache_goes_on_in_any_order() -> None:
    engine = opened()
    places = np.broadcast_to(np.arange(9), IDS.shape)
    wanted = np.array([8, 0, 8])
    found, cache = engine.run(IDS, causal(3, 9, 9, None), places, wanted, engine.start(3))
    assert (found == np.stack([[counts(row[: at + 1]) for at in wanted] for row in IDS])).all()
    order = [2, 0, 2]
    more = np.array([[1], [2], [3]])
    at = np.full((3, 1), 9)
    found, _ = engine.run(more, causal(3, 1, 10, None), at, np.array([0]), engine.select(cache, order))
    assert (found[:, 0] == np.stack([counts(np.append(IDS[row], new)) for row, new in zip(order, more[:, 0])])).all()


def test_every_pass_of_a_generation_is_told_and_padding_is_no_text() -> None:
    engine = opened()
    out, phases = np.zeros((3, 4), np.int64), list[Phase]()
    mask = np.ones(IDS.shape, np.bool_)
    mask[1, :3] = False
    engine.generate(IDS, out, mask, lambda phase, _held: phases.append(phase))
    assert phases == ["prefill", "decode", "decode", "decode"]
    assert out[1, 0] == counts(IDS[1, 3:]).argmax()
    assert out[0, 0] == counts(IDS[0]).argmax()


def test_keys_and_values_count_for_the_tokens_that_ran() -> None:
    engine = opened()
    engine.weigh()
    engine.generate(IDS, np.zeros((3, 4), np.int64), None, None)
    assert engine.weigh() == (1000, 1000 + 10 * 3 * 13 + 5)
    assert engine.weigh() == (1000, 1005)


def test_the_process_sees_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(foreign_engine.__file__).parents[3]))
    engine = opened()
    assert engine.facts["modules"] == []
    assert engine.facts["python_path"] == str(foreign_engine._SCRIPTS)


@pytest.mark.parametrize(("fail", "kind"), [("memory", MemoryError), ("other", Unsupported)])
def test_what_an_engine_cannot_open_is_one_line(fail: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="as it was told") as caught:
        opened(fail=fail)
    assert "\n" not in str(caught.value)


def test_an_engine_that_ends_is_told_by_its_last_words() -> None:
    engine = opened(end=True)
    with pytest.raises(ProcessLost, match=r"exit code 3; .*the last words"):
        engine.logits_at([IDS[0].astype(np.int32)], [np.array([0])])


def test_a_killed_engine_is_told_by_its_signal() -> None:
    engine = opened()
    os.kill(engine._process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLost, match="killed by SIGKILL"):
        engine.logits_at([IDS[0].astype(np.int32)], [np.array([0])])


def test_the_process_counts_as_ours_and_ends_with_its_object() -> None:
    engine = opened()
    process = psutil.Process(engine._process.pid)
    assert process.pid in helpers.pids()
    del engine
    deadline = time.monotonic() + 5
    while process.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process.is_running()
    assert process.pid not in helpers.pids()
