"""Packages of npm are taken by their hash, and write nothing outside their folder."""

from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from objectives import assets
from objectives.assets.asset import AssetError
from objectives.assets.npm import download_package, extract_files


def archive(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program ``npm`` that packs what lies beside it, and the folder of it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "npm"
    program.write_text(
        f'#!/bin/sh\n[ -f {folder}/a.tgz ] || {{ echo "no such package" >&2; exit 1; }}\ncp {folder}/a.tgz "$6"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder


def test_a_package_is_taken_by_its_hash(npm: Path, tmp_path: Path) -> None:
    made = archive(npm / "a.tgz", **{"package/lib/a.so": b"a"})
    into = tmp_path / "into"
    into.mkdir()
    got = download_package("a@1", hashlib.sha256(made.read_bytes()).hexdigest(), into)
    extract_files(got, "package/lib/", tmp_path / "out")
    assert (tmp_path / "out" / "a.so").read_bytes() == b"a"
    got.unlink()
    with pytest.raises(AssetError, match="sha256 is not the pinned one"):
        download_package("a@1", "0" * 64, into)


def test_what_npm_says_is_told(npm: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"cannot download a@1 \(npm: no such package\)"):
        download_package("a@1", "0" * 64, tmp_path)


def test_without_npm_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match="npm, which downloads a@1, is not installed"):
        download_package("a@1", "0" * 64, tmp_path)


@pytest.mark.parametrize("name", ["package/lib/../../../evil", "package/lib//etc/evil"])
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tgz", **{name: b"x", "package/lib/good": b"y"})
    into = tmp_path / "deep" / "into"
    with suppress(AssetError):
        extract_files(made, "package/lib/", into)
    outside = {path for path in tmp_path.rglob("*") if path.is_file()} - {made}
    assert all(into in path.parents for path in outside)
    assert not Path("/etc/evil").exists()


def test_an_archive_without_such_files_or_torn_is_told(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tgz", **{"package/other": b"x" * 10000})
    with pytest.raises(AssetError, match="has no package/lib/"):
        extract_files(made, "package/lib/", tmp_path / "out")
    made.write_bytes(made.read_bytes()[:30])
    with pytest.raises(AssetError, match="cannot be unpacked"):
        extract_files(made, "package/", tmp_path / "out")


def test_llama_cpp_is_an_asset_that_is_fetched_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="run: paretune fetch llama-cpp"):
        assets.locate("llama-cpp")
