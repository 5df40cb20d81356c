"""Statistics of the dense model that are gathered once for all processes that share a cache.

Gathering takes longer than compressing. Several devices that measure one study, and a study that goes on, take from the
cache what an earlier process gathered from the same model and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor
from typing_extensions import override

from objectives.calibration.moments import Domains, Moments
from objectives.calibration.statistics import Statistics
from objectives.calibration.stored_statistics import load_gradients, load_moments, save_gradients, save_moments
from objectives.evaluation.artifact_store import ArtifactStore

if TYPE_CHECKING:
    from objectives.models import LoadedModel

_T = TypeVar("_T")

MOST_BYTES = 1 << 30
"""The largest statistics that are kept: more would push models out of the cache."""

_FILE = "statistics.safetensors"


class KeptStatistics(Statistics):
    """Statistics that lie in ``artifacts`` under names that ``name`` makes of a kind; None keeps nothing."""

    def __init__(
        self,
        model: LoadedModel,
        domains: Domains,
        running: LoadedModel,
        artifacts: ArtifactStore,
        name: Callable[[str], str | None],
    ) -> None:
        super().__init__(model, domains, running)
        self._artifacts, self._name = artifacts, name

    @cached_property
    @override
    def moments(self) -> Moments:
        """Return the moments by (block, path), from the cache where they are there."""
        return self._kept("moments", lambda: super(KeptStatistics, self).moments, save_moments, load_moments)

    @cached_property
    @override
    def gradients(self) -> Mapping[tuple[str, str], Tensor]:
        """Return E[g g^T] by (block, path), from the cache where it is there."""
        return self._kept("gradients", lambda: super(KeptStatistics, self).gradients, save_gradients, load_gradients)

    def _kept(
        self, kind: str, gather: Callable[[], _T], save: Callable[[Any, Path], None], load: Callable[[Path], _T]
    ) -> _T:
        name = self._name(kind) if self._bytes <= MOST_BYTES else None
        if name is None:
            return gather()
        gathered: list[_T] = []

        def write(folder: Path) -> None:
            gathered.append(gather())
            save(gathered[0], folder / _FILE)

        folder = self._artifacts.folder("statistics", name, write)
        self._artifacts.release_with(self, folder)
        return gathered[0] if gathered else load(folder / _FILE)

    @cached_property
    def _bytes(self) -> int:
        """Return about how much the moments take: a square matrix for what each linear reads, in 4 bytes a number."""
        linears = (block.linear(path) for block in self.model.blocks() for path in block.stack.block_linears)
        return sum(4 * linear.in_features**2 for linear in linears)
