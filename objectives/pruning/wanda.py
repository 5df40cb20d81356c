"""Wanda removes those weights of each output whose product with the input's norm is smallest; the others stay.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models, https://arxiv.org/abs/2306.11695.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.pruning.masked import Masked
from objectives.settings import FORBID

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration.moments import Moment


@settings(frozen=True, kw_only=True, config=FORBID)
class Wanda(Masked):
    """Zero ``ratio`` of every block linear's weights: in any place, or ``2:4``. Simulated: no kernel gains by it."""

    @override
    def masked(self, weight: Tensor, moment: Moment) -> Tensor:
        from objectives.pruning.masking import lowest

        scores = weight.square() * moment.second.diagonal()
        return weight.masked_fill(lowest(scores, self.ratio, self.pattern), 0.0)
