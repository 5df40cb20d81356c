"""What the runtimes whose engines are files have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.runtime.packages import Packages
    from objectives.types import Materials, Quantizer, Runner


class EngineRuntime:
    """See ``objectives.types.Runtime``; members write a folder and open it (``objectives.runtime.folder.Opener``)."""

    @property
    def is_torch(self) -> bool:
        """See ``objectives.types.Runtime``."""
        return False

    @property
    def packages(self) -> Packages:
        """What it is made of."""
        raise NotImplementedError

    def requirements(self) -> str | None:
        """See ``objectives.types.Runtime``."""
        return self.packages.missing()

    def versions(self) -> dict[str, str]:
        """See ``objectives.types.Runtime``."""
        return self.packages.versions()

    def storage(self, quantizer: Quantizer) -> Quantizer:
        """See ``objectives.types.Runtime``."""
        from objectives.runtime.portable import portable

        return portable(quantizer)

    def prepare(self, materials: Materials) -> Runner:
        """See ``objectives.types.Runtime``."""
        from objectives.runtime.runner import EngineRunner

        return EngineRunner.made(materials, self, lambda folder: self.write(folder, materials))

    def write(self, folder: Path, materials: Materials) -> None:
        """Fill the new ``folder`` with the engine of the compressed model. Raises Unsupported."""
        raise NotImplementedError
