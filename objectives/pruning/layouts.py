"""The layouts that pruning may leave: data, without torch.

An engine that knows no code of ours reads widths from a config. Most configs have one number for all blocks; a few have
one for every block, in steps of their own. Which engine loads which layout stands in :mod:`objectives.export.engines`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

LayoutName = Literal["free", "deci", "uniform"]


@dataclass(frozen=True)
class LayoutRules:
    """The rules of a layout: the shapes that it allows.

    ``channels``: FFN widths are multiples of at least so many; ``heads``: whether heads may go; ``tied``: whether all
    blocks of a stack keep equal widths. ``stays``: what a refusal says must stay, with the step of the widths in it.
    """

    channels: int
    heads: bool
    tied: bool
    stays: str

    def step(self, multiple_of: int) -> int:
        """Return the step of FFN widths: the least multiple of ``multiple_of`` that the layout takes."""
        if self.tied:
            return -(-self.channels // multiple_of) * multiple_of
        return math.lcm(self.channels, multiple_of)


LAYOUTS: Mapping[LayoutName, LayoutRules] = MappingProxyType(
    {
        "free": LayoutRules(
            1, heads=True, tied=False, stays="one KV group and {} FFN channels must stay in every block",
        ),
        "deci": LayoutRules(
            256, heads=False, tied=False,
            stays="layout=deci keeps all heads, and {} FFN channels in every block; layout=free removes more",
        ),
        "uniform": LayoutRules(
            64, heads=True, tied=True,
            stays="layout=uniform keeps one KV group, or all heads where the model's config can say no fewer, and "
            "{} FFN channels in every block; layout=free removes more",
        ),
    }
)  # fmt: skip
