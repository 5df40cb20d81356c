"""The facts that a measurement depends on besides its candidate: hardware, driver, libraries, threads, source revision.

The process that measures notes them as text, and the study keeps them. Two machines are alike when :data:`HARDWARE`
agrees: only then do timings of two studies compare. Versions and the revision are for the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from objectives.devices.control_groups import memory_limits

if TYPE_CHECKING:
    from objectives.protocols.running import Device

HARDWARE: tuple[str, ...] = (
    "device", "device_name", "cores", "threads", "memory", "cpu_capability", "device_memory", "compute_capability",
    "driver", "omp_wait_policy",
)  # fmt: skip
"""The facts that make two machines comparable."""

KIND: tuple[str, ...] = ("device", "device_name", "cores", "threads", "device_memory", "compute_capability")
"""The facts that make two devices of one kind: results of two kinds are never mixed in one study."""

PACKAGES = ("torch", "transformers", "numpy", "safetensors", "tokenizers", "paretune")
MEMORY_TOLERANCE = 0.05
"""Kernels and firmware keep a little for themselves, so equal machines report unequal bytes."""

_SOURCES = ("objectives", "search", "conf")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_GIT_SECONDS = 2.0
_GIT_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in hooks, where they name another repository


def fingerprint(device: Device) -> dict[str, str]:
    """Return all facts about the machine and the software with which ``device`` measures.

    An unknown fact is absent, never empty. ``memory`` and ``device_memory`` are in bytes. ``device`` has to be started,
    as its threads are among the facts.
    """
    facts = {
        **device.describe(),
        "memory": str(_memory()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "omp_wait_policy": " ".join(filter(None, map(os.environ.get, _WAITING))) or "default",
        "git_revision": _revision(Path(__file__).resolve().parents[2]),
    }
    return {name: value for name, value in facts.items() if value}


def unlike(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the hardware facts that differ, by name, with both texts; "-" where one is absent.

    Memory may differ by 5 %.
    """
    pairs = {name: (first.get(name, "-"), second.get(name, "-")) for name in HARDWARE}
    return {
        name: pair for name, pair in pairs.items() if pair[0] != pair[1] and not (name == "memory" and _close(*pair))
    }


def digest(facts: Mapping[str, str]) -> str:
    """Return a hash of hardware and torch in 12 hex digits: the key of figures that are measured once per machine.

    Memory counts with two significant digits, so that another kernel does not make another machine.
    """
    kept = {name: facts[name] for name in (*HARDWARE, "torch") if name in facts}
    if kept.get("memory", "").isdecimal():
        kept["memory"] = f"{int(kept['memory']):.1e}"
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _close(first: str, second: str) -> bool:
    if not (first.isdecimal() and second.isdecimal()):
        return False
    low, high = sorted((int(first), int(second)))
    return high - low <= MEMORY_TOLERANCE * high


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may use: the machine's, or the lowest limit of its control groups."""
    return min([psutil.virtual_memory().total, *memory_limits(root)])


def _revision(root: Path) -> str | None:
    """Return the short hash of the checkout ``root``, with ``+changes`` where its code or settings differ.

    None where ``root`` is no checkout of this project.
    """
    if _project(root) != "paretune":
        return None
    command = ("git", "--no-optional-locks", "-C", str(root), "status", "--porcelain=v2", "--branch", "--", *_SOURCES)
    # The ceiling keeps git from taking a repository around an installed package for the package's own.
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_ELSEWHERE}
    environment["GIT_CEILING_DIRECTORIES"] = str(root.parent)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            env=environment,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _read_status(done.stdout.splitlines())


def _read_status(lines: list[str]) -> str | None:
    commits = [line.split()[2] for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None
    changed = any(not line.startswith("#") for line in lines)
    return commits[0][:10] + ("+changes" if changed else "")


def _project(root: Path) -> str | None:
    """Return the project's name in ``root``'s pyproject.toml; None where there is none."""
    try:
        name = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8", errors="replace"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
