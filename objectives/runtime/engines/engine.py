"""What the runtimes whose engines are files have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.protocols.candidate import BuildContext, Quantizer
    from objectives.protocols.running import Runner
    from objectives.runtime.packages import Packages


class EngineRuntime:
    """See ``Runtime``; members write a folder and open it (``objectives.runtime.engines.folder.Opener``)."""

    @property
    def is_torch(self) -> bool:
        """See ``Runtime``."""
        return False

    @property
    def packages(self) -> Packages:
        """What it is made of."""
        raise NotImplementedError

    def requirements(self) -> str | None:
        """See ``Runtime``."""
        return self.packages.missing()

    def versions(self) -> dict[str, str]:
        """See ``Runtime``."""
        return self.packages.versions()

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """See ``Runtime``."""
        from objectives.runtime.engine_support import portable

        return portable(quantizer)

    def prepare(self, materials: BuildContext) -> Runner:
        """See ``Runtime``."""
        from objectives.runtime.engines.runner import EngineRunner

        return EngineRunner.made(materials, self, lambda folder: self.write(folder, materials))

    def write(self, folder: Path, materials: BuildContext) -> None:
        """Fill the new ``folder`` with the engine of the compressed model. Raises Unsupported."""
        raise NotImplementedError
