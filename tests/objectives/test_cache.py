"""The cache of stages: whole or not there, bounded, and safe where several processes write."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from objectives.cache import Cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(folder=str(tmp_path / "cache"))


def test_what_was_put_comes_back_to_the_bit(cache: Cache) -> None:
    value = {"metrics": {"latency": 0.1 + 0.2, "tiny": 5e-324}, "notes": ["ä", ""], "examples": [1.0, 0.0]}
    cache.put("score", "k", value)
    assert cache.get("score", "k") == value
    assert cache.get("score", "other") is None
    assert cache.get("time", "k") is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "binary"])
def test_a_torn_entry_is_not_there_and_can_be_made_again(
    cache: Cache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put("score", "k", {"accuracy": 0.5})
    (path,) = Path(cache.folder).glob("score/k")
    content = path.read_bytes()
    flipped = content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]
    path.write_bytes({"cut": content[:-3], "flip": flipped, "empty": b"", "binary": b"\xff\xfe\n{}"}[damage])
    assert cache.get("score", "k") is None
    assert "damaged" in caplog.text
    assert not path.exists()
    cache.put("score", "k", {"accuracy": 0.25})
    assert cache.get("score", "k") == {"accuracy": 0.25}


def test_a_folder_appears_whole(cache: Cache) -> None:
    def write(part: Path) -> None:
        part.mkdir()
        (part / "weights").write_bytes(b"123")
        assert cache.folder_of("compress", "k") is None

    cache.put_folder("compress", "k", write)
    found = cache.folder_of("compress", "k")
    assert found is not None
    assert (found / "weights").read_bytes() == b"123"
    cache.put_folder("compress", "k", write_nothing)
    assert cache.folder_of("compress", "k") == found
    cache.drop("compress", "k")
    assert cache.folder_of("compress", "k") is None


def write_nothing(part: Path) -> None:
    part.mkdir()


def test_a_write_that_fails_half_way_leaves_nothing(cache: Cache) -> None:
    def write(part: Path) -> None:
        part.mkdir()
        (part / "half").write_bytes(b"1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.put_folder("compress", "k", write)
    assert list(Path(cache.folder).glob("compress/*")) == []


def key(name: str) -> str:
    """A name as entries have it."""
    return hashlib.sha256(name.encode()).hexdigest()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(folder=str(tmp_path), max_bytes=1000.0)
    for age, name in enumerate(["new", "old", "oldest"]):
        cache.put("score", key(name), {"text": "x" * 200})
        os.utime(tmp_path / "score" / key(name), times=(time.time() - 100 - age,) * 2)
    assert cache.get("score", key("oldest")) is not None  # used now
    cache.put("score", key("last"), {"text": "x" * 200})
    assert cache.get("score", key("old")) is None
    assert all(cache.get("score", key(name)) for name in ("new", "oldest", "last"))


def test_an_entry_larger_than_all_is_kept_until_the_next(tmp_path: Path) -> None:
    cache = Cache(folder=str(tmp_path), max_bytes=10.0)
    cache.put("score", key("a"), {"text": "x" * 200})
    assert cache.get("score", key("a")) is not None
    os.utime(tmp_path / "score" / key("a"), times=(1, 1))
    cache.put("score", key("b"), {"text": "x" * 200})
    assert cache.get("score", key("a")) is None


def test_files_of_others_in_its_folder_stay(tmp_path: Path) -> None:
    """Somebody may name a folder that is not empty."""
    documents = tmp_path / "documents"
    others = [documents / "thesis.tex", documents / "photos" / "a.jpg", documents / ".part-of-a-film" / "a.mp4"]
    for file in others:
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text("x" * 500)
        os.utime(file, times=(1, 1))
        os.utime(file.parent, times=(1, 1))
    cache = Cache(folder=str(tmp_path), max_bytes=1.0)
    for name in ("a", "b"):
        cache.put("score", key(name), {"text": "x" * 200})
    assert [file.exists() for file in others] == [True] * 3
    assert cache.get("score", key("a")) is None


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path) -> None:
    cache = Cache(folder=str(tmp_path))
    fresh, stale = (tmp_path / "score" / name for name in (".part-fresh_01", ".part-stale_01"))
    for folder in (fresh, stale):
        folder.mkdir(parents=True)
    os.utime(stale, times=(1, 1))
    cache.put("score", "k", {})
    assert fresh.exists()
    assert not stale.exists()


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(folder=str(tmp_path / "file"))
    cache.put("score", "k", {})
    assert cache.get("score", "k") is None
    assert "cannot write to the cache" in caplog.text


WRITER = """
import sys
from objectives.cache import Cache
cache = Cache(folder=sys.argv[1], max_bytes=20_000.0)
for turn in range(150):
    key = f"{turn % 10:064x}"
    found = cache.get("score", key)
    assert found is None or found == {"key": key, "text": key[-1] * 2000}, found
    cache.put("score", key, {"key": key, "text": key[-1] * 2000})
    def write(part):
        part.mkdir()
        for name in "ab":
            (part / name).write_text(key[-1] * 500)
    cache.put_folder("compress", key, write)
    folder = cache.folder_of("compress", key)
    if turn % 7 == 0:
        cache.drop("compress", key)
"""


def test_several_processes_share_it(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 45_000
