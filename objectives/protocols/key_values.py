"""The bits in which a decoder keeps the keys and values of the tokens that it has read.

Every further token reads all of them again, and with many or long requests they take more memory than the weights. How
they are rounded is the runtime's business; which widths it has, it says
(:class:`objectives.protocols.optional.RoundsKeyValues`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Strength


@settings(frozen=True, kw_only=True, config=FORBID)
class KeyValueBits:
    """Keep keys and values in ``bits``: 16 as the runtime does by itself; 8 or 4 rounded as they enter the cache."""

    bits: Annotated[Literal[16, 8, 4], Strength(neutral=16, harder=-1, uneven=True)] = 16
