"""Wanda: of every output's weights those go whose product with the input's norm is smallest; nothing is mended.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models, https://arxiv.org/abs/2306.11695.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.settings import FORBID, Ratio

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration import Moment, Statistics
    from objectives.models import LoadedModel


@settings(frozen=True, kw_only=True, config=FORBID)
class Wanda:
    """Zero ``ratio`` of every block linear's weights: in any place, or ``2:4``. Simulated: no kernel gains by it."""

    ratio: Ratio = 0.0
    pattern: Literal["unstructured", "2:4"] = "unstructured"

    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        """See ``objectives.types.Pruner``."""
        from objectives.pruning.masking import mask_

        if self.ratio:
            mask_(model, statistics, self.ratio, self.pattern, self._masked)

    def sketch_(self, model: LoadedModel, statistics: Statistics) -> None:
        """See ``objectives.types.Pruner``: a mask changes no shape."""

    def predict(self, statistics: Statistics) -> float:
        """See ``objectives.types.Pruner``."""
        return float("nan") if self.ratio else 0.0

    def _masked(self, weight: Tensor, moment: Moment) -> Tensor:
        from objectives.pruning.masking import lowest

        scores = weight.square() * moment.second.diagonal()
        return weight.masked_fill(lowest(scores, self.ratio, self.pattern), 0.0)
