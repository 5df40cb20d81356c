"""A cache of rows that were padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Padded:
    """A cache of transformers with its ``mask`` [rows, tokens], which says which of its places count."""

    cache: Any
    mask: Tensor
