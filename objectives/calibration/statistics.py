"""Statistics: what calibration learns about the dense model, from which every ratio and bit width is computed.

One walk keeps, for each block linear, the mean and the second moment of its input;
scores, least-squares reconstruction and weighted rounding need nothing else. Methods that weigh layers against
each other ask for gradients too: one backward pass over a part of the same rows. Both are gathered when first
asked for, once per study.

Every domain that the model will serve weighs the same, however many rows it has: moments of one domain alone
make a reconstruction that loses twice as much in another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor
from typing_extensions import override

from objectives.calibration.moments import Domains, Moment, Moments, collect_moments, first_tokens
from objectives.models.layers import layers_of

if TYPE_CHECKING:
    from objectives.models import LoadedModel
    from objectives.models.layers import Layer

_T = TypeVar("_T")


class Statistics:
    """Moments of ``model``'s block inputs over ``domains``, and whatever methods derive from them once.

    ``model`` is on the CPU, where models are compressed; ``running`` is the same where it runs, ``model`` itself unless
    it is given. Without domains there are no moments: enough for a recipe that changes nothing.
    """

    def __init__(self, model: LoadedModel, domains: Domains, running: LoadedModel | None = None) -> None:
        self.model = model
        self.running = running or model
        self.domains = domains
        self._derived: dict[Hashable, Any] = {}

    @cached_property
    def moments(self) -> Moments:
        """Return the moments by (block, path); linears that read the same tensor share one."""
        return collect_moments(self.running, self.domains)

    @cached_property
    def gradients(self) -> Mapping[tuple[str, str], Tensor]:
        """Return E[g g^T] at the block linears' outputs, as :mod:`objectives.calibration.gradients` collects it."""
        from objectives.calibration.gradients import collect_gradients

        return collect_gradients(self.running, self.domains)

    @property
    def unread(self) -> list[str]:
        """Return the linears that no calibration row has reached, as far as moments or gradients were collected."""
        moments: Moments = vars(self).get("moments", {})
        gradients: Mapping[tuple[str, str], Tensor] = vars(self).get("gradients", {})
        without = [key for key, moment in moments.items() if not moment.share]
        silent = [key for key, gradient in gradients.items() if key not in without and not gradient.any()]
        return [".".join(key) for key in (*without, *silent)]

    @property
    def dense(self) -> Statistics:
        """Return the dense model's statistics, which these are."""
        return self

    @property
    def shapes(self) -> Statistics:
        """Return statistics without domains: enough to store a sketch of the model."""
        return Statistics(self.model, {})

    def memoize(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the result of ``make``, which is called once per ``key``."""
        if key not in self._derived:
            self._derived[key] = make()
        derived: _T = self._derived[key]
        return derived


class RecalibratedStatistics(Statistics):
    """``dense`` statistics with the moments of a model that was pruned, over the first ``tokens`` tokens per domain."""

    def __init__(self, dense: Statistics, pruned: LoadedModel, tokens: int) -> None:
        few = {name: first_tokens(batches, tokens) for name, batches in dense.domains.items()}
        super().__init__(dense.model, few, dense.running)
        self._dense, self._pruned = dense, pruned

    @cached_property
    @override
    def moments(self) -> Moments:
        """Return the pruned model's moments by (block, path), of the channels that are left."""
        return collect_moments(self._pruned, self.domains)

    @property
    @override
    def dense(self) -> Statistics:
        """Return the dense model's statistics, from which these were made."""
        return self._dense

    @property
    @override
    def gradients(self) -> Mapping[tuple[str, str], Tensor]:
        """Return the gradients of the dense model."""
        return self._dense.gradients


def moment_of(model: LoadedModel, statistics: Statistics, layer: Layer) -> Moment:
    """Return the moment of the inputs that pruning left of a layer; :meth:`Moment.unread` without calibration.

    The statistics may be those of the dense model or of the pruned one.
    """
    width = layer.linears[0].in_features
    moment = statistics.moments.get(layer.key)
    if moment is None:
        return Moment.unread(width)
    kept = model.kept_inputs.get(layer.key)
    return moment if kept is None or len(moment.mean) == width else moment.select(kept)


def input_powers(model: LoadedModel, statistics: Statistics) -> dict[str, Tensor]:
    """Return E[x^2] of every input of the block linears [in], by the name of their module; empty without calibration.

    ``model``: the dense model or what pruning left of it; its linears may be packed.
    """
    if not statistics.domains:
        return {}
    names = {id(module): name for name, module in model.module.named_modules()}
    return {
        names[id(linear)]: moment_of(model, statistics, layer).second.diagonal()
        for layer in layers_of(model)
        for linear in layer.linears
    }
