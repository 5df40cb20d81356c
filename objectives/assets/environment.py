"""A virtual environment as an asset: packages that share neither our torch nor our transformers.

It has an interpreter of its own, which is only ever run as a process. Packages are installed at pinned versions; their
files are known by the lists (RECORD) that installers leave, which is what an asset of so many files is checked by.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import AssetError, Say
from objectives.assets.wheels import explain

PINS = Path(__file__).with_name("pins")
"""The folder with a file of pinned versions for every environment."""
_TORCH = "https://download.pytorch.org/whl/cpu"
_NO_MATCH = "No matching distribution"
_ASKED = """
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        pass
"""


_OURS = ("VIRTUAL_ENV", "LD_PRELOAD")


def interpreter(folder: Path) -> Path:
    """Return the Python of the environment in ``folder``."""
    return folder / "bin" / "python"


def variables() -> dict[str, str]:
    """Return the variables of this process, without those that change what another interpreter loads."""
    return {name: value for name, value in os.environ.items() if name not in _OURS and not name.startswith("PYTHON")}


def versions_of(python: Path, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the versions of those of ``names`` that ``python`` sees, which is asked: links and systems differ.

    Nothing where it does not run.
    """
    asked = [str(python), "-I", "-c", _ASKED, *names]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, encoding="utf-8", errors="replace")
    pairs = (line.split("==") for line in done.stdout.splitlines())
    return tuple((name, number) for name, number in pairs)


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the packages of ``pins``, a file of exact versions.

    ``size``: what it takes on disk, for people.
    """

    name: str
    version: str
    pins: str
    size: str
    fetched_by_hand: bool = True

    @property
    def listed(self) -> Sequence[str]:
        """Return the patterns of the files by which the environment is checked."""
        return ("pyvenv.cfg", "lib/python*/site-packages/*.dist-info/RECORD")

    def build(self, into: Path, say: Say) -> None:
        """Make the environment and install the packages. Raises AssetError."""
        say(f"installing {self.name} into an environment of its own ({self.size}); this takes minutes")
        venv.create(into, symlinks=True, with_pip=False)
        said = self._install(into)
        if said is not None and _NO_MATCH in said:  # the usual index has no builds of torch for CPUs alone
            said = self._install(into, "--extra-index-url", _TORCH)
        if said is not None:
            raise AssetError(f"cannot install {self.name}: {explain(said)}")

    def _install(self, into: Path, *options: str) -> str | None:
        """Let pip install the pinned packages, and return what it said where it failed."""
        pip = [sys.executable, "-P", "-m", "pip", "--python", str(interpreter(into)), "install", "--quiet"]
        what = [
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--requirement",
            str(PINS / self.pins),
        ]
        done = subprocess.run(
            [*pip, *what, *options], capture_output=True, text=True, check=False, encoding="utf-8", errors="replace"
        )
        return done.stderr if done.returncode else None
