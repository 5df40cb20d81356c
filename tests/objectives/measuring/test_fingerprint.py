from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from objectives.devices.cuda import Cuda
from objectives.measuring import fingerprint as module
from objectives.measuring.fingerprint import HARDWARE, digest, fingerprint, unlike

TOTAL = psutil.virtual_memory().total
FACTS = {"device": "cpu", "device_name": "Chip", "cores": "4", "memory": "16000000000", "torch": "2.10.0"}


class Chip:
    """A device that only describes itself."""

    name = "cpu"

    def describe(self) -> dict[str, str]:
        return {"device": "cpu", "device_name": "Chip", "cores": "4", "threads": "2", "cpu_capability": "AVX2"}


def of_chip() -> dict[str, str]:
    device: Any = Chip()
    return fingerprint(device)


def of_card(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a GPU whose properties are made up."""
    properties = SimpleNamespace(name="Card", total_memory=8, major=9, minor=0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: properties)
    return fingerprint(Cuda())


def test_all_facts_are_text_and_none_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    facts = of_chip()
    assert all(isinstance(value, str) and value for value in facts.values())
    assert facts["device_name"] == "Chip"
    assert facts["omp_wait_policy"] == "default"
    assert facts["numpy"] == np.__version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (facts["kernel"], facts["machine"]) == (os.uname().release, os.uname().machine)
    assert 0 < int(facts["memory"]) <= TOTAL


def test_the_wait_policy_of_the_process_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5000")
    assert of_chip()["omp_wait_policy"] == "PASSIVE 5000"


def test_a_missing_package_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "no-such-package"))
    facts = of_chip()
    assert "numpy" in facts
    assert "no-such-package" not in facts


def test_taking_a_fingerprint_imports_no_torch() -> None:
    code = (
        "import sys; from objectives.measuring.fingerprint import fingerprint; from types import SimpleNamespace; "
        "fingerprint(SimpleNamespace(describe=dict)); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


@pytest.mark.parametrize(("limit", "expected"), [(1000, 1000), (10 * TOTAL, TOTAL)])
def test_memory_is_the_machines_or_the_lowest_limit_of_the_control_groups(
    monkeypatch: pytest.MonkeyPatch, limit: int, expected: int
) -> None:
    monkeypatch.setattr(module, "memory_limits", lambda _root: iter([limit]))
    assert module._memory() == expected


class NvmlError(Exception):
    pass


@pytest.mark.parametrize("loaded", [True, False])
def test_the_driver_is_noted_where_it_is_loaded(monkeypatch: pytest.MonkeyPatch, loaded: bool) -> None:
    def start() -> None:
        if not loaded:
            raise NvmlError("driver not loaded")

    library: Any = ModuleType("pynvml")
    library.NVMLError, library.nvmlInit, library.nvmlSystemGetDriverVersion = NvmlError, start, lambda: "580.1"
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert of_card(monkeypatch).get("driver") == ("580.1" if loaded else None)
    assert "driver" not in of_chip()  # a driver does not change what a CPU measures


def test_the_driver_is_absent_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "driver" not in of_card(monkeypatch)


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit that says it is paretune."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "checkout"
    write(root, "pyproject.toml", '[project]\nname = "paretune"\n')
    write(root, "objectives/__init__.py", "")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_the_revision_is_the_commit_of_the_checkout(checkout: Path) -> None:
    revision = module._revision(checkout)
    assert revision is not None
    assert git(checkout, "rev-parse", "HEAD").startswith(revision)
    assert len(revision) == 10


@pytest.mark.parametrize("name", ["objectives/__init__.py", "objectives/new.py", "conf/new.yaml"])
def test_changed_and_new_sources_mark_the_revision(checkout: Path, name: str) -> None:
    clean = module._revision(checkout)
    write(checkout, name, "x = 1\n")
    assert module._revision(checkout) == f"{clean}+changes"


def test_results_written_into_the_checkout_do_not_mark_the_revision(checkout: Path) -> None:
    clean = module._revision(checkout)
    write(checkout, "mlruns/studies.db", "rows")
    assert module._revision(checkout) == clean


def test_another_projects_repository_is_not_the_revision(checkout: Path) -> None:
    write(checkout, "pyproject.toml", '[project]\nname = "other"\n')
    assert module._revision(checkout) is None
    write(checkout, "pyproject.toml", "[project\n")
    assert module._revision(checkout) is None
    (checkout / "pyproject.toml").unlink()
    assert module._revision(checkout) is None


def test_a_repository_around_the_package_is_not_its_revision(checkout: Path) -> None:
    installed = checkout / "site-packages"
    write(installed, "pyproject.toml", '[project]\nname = "paretune"\n')
    assert module._revision(installed) is None


def test_a_hooks_environment_does_not_name_another_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = module._revision(checkout)
    monkeypatch.setenv("GIT_DIR", str(checkout.parent / "elsewhere"))
    assert module._revision(checkout) == revision is not None


def test_without_a_commit_there_is_no_revision(checkout: Path) -> None:
    git(checkout, "update-ref", "-d", "HEAD")
    assert module._revision(checkout) is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 2), subprocess.CalledProcessError(128, "git")]
)
def test_where_git_is_missing_slow_or_refuses_there_is_no_revision(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    given: dict[str, Any] = {}

    def fail(*_: object, **options: Any) -> None:
        given.update(options)
        raise error

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=fail, SubprocessError=subprocess.SubprocessError))
    assert module._revision(checkout) is None
    assert given["timeout"] == 2.0


def test_unlike_names_both_values_of_hardware_and_nothing_else() -> None:
    other = {**FACTS, "cores": "8", "torch": "2.11.0", "kernel": "6.1", "git_revision": "abc"}
    assert unlike(FACTS, other) == {"cores": ("4", "8")}
    assert unlike(FACTS, FACTS) == {}


def test_a_fact_that_only_one_machine_has_is_a_difference() -> None:
    assert unlike(FACTS, {**FACTS, "driver": "580.1"}) == {"driver": ("-", "580.1")}
    assert unlike({**FACTS, "driver": "580.1"}, FACTS) == {"driver": ("580.1", "-")}


@pytest.mark.parametrize(("memory", "alike"), [("16840000000", True), ("16850000000", False), ("-", False)])
def test_memory_may_differ_by_a_twentieth(memory: str, alike: bool) -> None:
    other = {**FACTS, "memory": memory}
    assert (unlike(FACTS, other) == {}) is alike
    assert (unlike(other, FACTS) == {}) is alike


def test_the_tolerance_is_for_memory_alone() -> None:
    assert "threads" in unlike({"threads": "100"}, {"threads": "101"})
    assert "device_memory" in unlike({"device_memory": "100"}, {"device_memory": "101"})


@pytest.mark.parametrize("name", [*(name for name in HARDWARE if name != "memory"), "torch"])
def test_the_digest_changes_with_hardware_and_torch(name: str) -> None:
    assert digest({**FACTS, name: "another"}) != digest(FACTS)


def test_the_digest_is_blind_to_the_rest_and_to_a_little_memory() -> None:
    same = {**FACTS, "memory": "16000123456", "kernel": "6.1", "git_revision": "abc", "numpy": "9"}
    assert digest(dict(reversed(same.items()))) == digest(FACTS)
    assert digest({**FACTS, "memory": "32000000000"}) != digest(FACTS)
    assert len(digest(FACTS)) == 12
    assert int(digest({}), 16) >= 0
