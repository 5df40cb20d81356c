"""Entries of the cache travel between machines, as files and as folders, and a lost one is made again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from objectives.cache import Cache
from search.executors import ray_exchange
from search.executors.ray_exchange import ExchangedCache, Registry, is_shared, mark, unmark

ray = pytest.importorskip("ray")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry in this process; what is put into the object store is the object itself."""
    monkeypatch.setattr(ray, "put", lambda entry: entry)
    monkeypatch.setattr(ray, "get", lambda entry: entry)
    real = Registry()
    return SimpleNamespace(offer=SimpleNamespace(remote=real.offer), find=SimpleNamespace(remote=real.find), real=real)


@pytest.fixture
def machines(registry: Any, tmp_path: Path) -> tuple[ExchangedCache, ExchangedCache]:
    one, other = (ExchangedCache.of(Cache(folder=str(tmp_path / name)), registry) for name in ("one", "other"))
    return one, other


def lay(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights").write_bytes(b"12345")
    (folder / "more").mkdir()
    (folder / "more" / "text").write_text("here")


def test_what_one_machine_found_another_gets(machines: tuple[ExchangedCache, ExchangedCache]) -> None:
    one, other = machines
    one.put("score", "a", {"accuracy": 0.5})
    one.put_folder("compress", "b", lay)
    assert other.get("score", "a") == {"accuracy": 0.5}
    folder = other.folder_of("compress", "b")
    assert folder is not None
    assert folder.is_relative_to(other.folder)
    assert (folder / "weights").read_bytes() == b"12345"
    assert (folder / "more" / "text").read_text() == "here"
    assert other.get("score", "nobody") is None
    assert other.folder_of("compress", "nobody") is None


def test_an_entry_whose_machine_left_is_made_again(
    machines: tuple[ExchangedCache, ExchangedCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    one.put("score", "a", {"accuracy": 0.5})

    def lost(_entry: object) -> None:
        raise ray.exceptions.RayError("the object is lost")

    monkeypatch.setattr(ray, "get", lost)
    assert other.get("score", "a") is None


def test_an_entry_that_is_too_large_stays_and_says_so(
    machines: tuple[ExchangedCache, ExchangedCache], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = machines
    monkeypatch.setattr(ray_exchange, "MOST_BYTES", 10)
    one.put("score", "a", {"accuracy": 0.5})
    assert other.get("score", "a") is None
    assert "stays on its machine" in caplog.text


def test_a_shared_folder_is_told_by_its_mark(tmp_path: Path) -> None:
    here, there = Cache(folder=str(tmp_path / "here")), Cache(folder=str(tmp_path / "there"))
    name = mark(here)
    assert is_shared(here, name)
    assert not is_shared(there, name)
    unmark(here, name)
    assert not is_shared(here, name)
