"""The shared part of the runtimes whose engines are files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.protocols.candidate import BuildContext, Quantizer
    from objectives.protocols.running import Runner
    from objectives.runtime.packages import Packages


class EngineRuntime:
    """The shared part of a runtime that writes its engine into a folder and opens it from there.

    Members also name :class:`objectives.runtime.engines.folder.Opener` and ``Runtime`` as bases, after this class.
    """

    @property
    def is_torch(self) -> bool:
        """Return False: an engine runs files of its own, not the packed model."""
        return False

    @property
    def isolated(self) -> bool:
        """Return whether its engines run in processes of their own, which may be lost: then nothing is tried before."""
        return False

    @property
    def packages(self) -> Packages:
        """Return the packages that running and converting need."""
        raise NotImplementedError

    def requirements(self) -> str | None:
        """Return which packages to install, in a line; None where all are there."""
        return self.packages.missing()

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that are installed, by name."""
        return self.packages.versions()

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """Return the nearest quantiser whose codes engines store (``objectives.runtime.engine_support.portable``)."""
        from objectives.runtime.engine_support import portable

        return portable(quantizer)

    def prepare(self, context: BuildContext) -> Runner:
        """Open the candidate's engine, which is written first unless it was kept. Raises Unsupported, MemoryError."""
        from objectives.runtime.engines.runner import EngineRunner

        return EngineRunner.made(context, self, lambda folder: self.write(folder, context), self.isolated)

    def write(self, folder: Path, context: BuildContext) -> None:
        """Fill the new ``folder`` with the engine of the compressed model. Raises Unsupported."""
        raise NotImplementedError
