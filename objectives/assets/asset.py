"""The protocol of an asset: a named, versioned folder of real weights or data that paretune makes ready by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from objectives.errors import ObjectiveError

Say = Callable[[str], None]
"""Shows one line of progress to a person."""


class AssetError(ObjectiveError):
    """An asset is missing, damaged or cannot be built; the message is one line for a person."""


class Asset(Protocol):
    """A folder that can be built from a pinned source; the same version gives the same content."""

    @property
    def name(self) -> str:
        """Return the name that a person types and a yaml holds."""

    @property
    def version(self) -> str:
        """Return the version, which changes with the content and is part of the folder's name."""

    @property
    def fetched_by_hand(self) -> bool:
        """Return whether it must be fetched by hand, for a network or for minutes; others are built on first use."""

    def build(self, into: Path, say: Say) -> None:
        """Fill the empty folder ``into``, check the result, and raise :class:`AssetError` if it is wrong.

        It is called at most once at a time. ``into.parent`` is scratch space of this build alone; everything in
        it but ``into`` is thrown away afterwards, whatever happens.
        """


@runtime_checkable
class Listed(Protocol):
    """An asset of very many files that is checked by some of them. Any other is checked by all."""

    @property
    def listed(self) -> Sequence[str]:
        """Return the patterns, below the asset's folder, of the files that its manifest lists."""
