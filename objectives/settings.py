"""Field types of settings: what a number in a yaml may be.

Construction checks and raises; it never converts text to numbers, so ``batch_size=abc`` and ``ratio='0.1'``
are refused where they stand.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

FORBID = ConfigDict(extra="forbid")
"""Config of every settings class: an unknown key is an error, not a silence."""

Count = Annotated[int, Field(strict=True, ge=1)]
Natural = Annotated[int, Field(strict=True, ge=0)]
Ratio = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(strict=True, min_length=1)]
