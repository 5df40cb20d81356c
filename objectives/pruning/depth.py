"""Depth pruning: whole blocks go, those first that trial removals show to matter least.

A block is scored by running the model without it and comparing its answer with the dense model's; the cheapest block is
removed, and the others are scored again without it. Removing a block saves time at every shape, decoding included, but
nothing takes over what the block did: at the same number of parameters, width pruning keeps far more accuracy.

Greedy removal as in Song et al., SLEB, https://arxiv.org/abs/2402.09025, scored by divergence from the dense model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.protocols.candidate import Pruner
from objectives.settings import FORBID, Count, Ratio, Strength

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel
    from objectives.models.anatomy import Stack


@settings(frozen=True, kw_only=True, config=FORBID)
class Depth(Pruner):
    """Remove whole blocks: the number that holds the share nearest to ``ratio`` of the block parameters.

    ``tokens``: calibration tokens on which a removal is tried. ``candidates``: how many blocks, cheapest so far first,
    are tried again at every step; the first step tries all.
    """

    ratio: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] = 0.0
    tokens: Count = 1024
    candidates: Count = 5

    @override
    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        gone, damage = self.removed(statistics)
        _remove_(model, gone)
        model.predicted_loss += damage

    @override
    def resize_fake_(self, model: LoadedModel, statistics: Statistics) -> None:
        _remove_(model, self.removed(statistics)[0])

    @override
    def predict(self, statistics: Statistics) -> float:
        """Return the divergence that the trial removal of the last block measured, nats per token."""
        return self.removed(statistics)[1]

    def removed(self, statistics: Statistics) -> tuple[list[str], float]:
        """Return the blocks that go, and the divergence of the model without them, nats per token."""
        if not self.ratio:
            return [], 0.0
        key = (Depth, self.tokens, self.candidates)
        removal = statistics.memoize(key, lambda: TrialRemoval(statistics, self.tokens, self.candidates))
        gone = removal.nearest(self.ratio)
        return gone, removal.damage(len(gone))


class TrialRemoval:
    """The order in which the blocks of a dense model go, found as far as it is asked for."""

    def __init__(self, statistics: Statistics, tokens: int, candidates: int) -> None:
        from objectives.calibration.divergence import divergence_from
        from objectives.calibration.moments import sample_rows

        self._model = statistics.running
        self._candidates = candidates
        self._divergence: Callable[[LoadedModel], float] = divergence_from(
            self._model, sample_rows(statistics.domains, tokens)
        )
        self._parameters = {block.name: block.parameters for block in self._model.blocks()}
        fixed = {
            f"{stack.layers}.{index}" for stack in self._model.family.stacks for index in _fixed(self._model, stack)
        }
        self._last = dict.fromkeys(self._parameters.keys() - fixed, 0.0)
        """The divergence that each removable block caused when it was last tried, nats per token."""
        self._gone: list[tuple[str, float]] = []

    def nearest(self, ratio: float) -> list[str]:
        """Return the blocks whose parameters come nearest to the share ``ratio``, in the order of removal.

        Raises Unsupported where the stacks are too short.
        """
        wanted = ratio * sum(self._parameters.values())
        smallest = min(self._parameters.values())
        removed, count = 0, 0
        while wanted - removed > smallest / 2:
            if count == len(self._gone):
                self._remove_next(ratio)
            step = self._parameters[self._gone[count][0]]
            if wanted - removed < step / 2:
                break
            removed, count = removed + step, count + 1
        return [name for name, _ in self._gone[:count]]

    def damage(self, count: int) -> float:
        """Return the divergence of the model without the first ``count`` of the removed blocks, nats per token."""
        return self._gone[count - 1][1] if count else 0.0

    def _remove_next(self, ratio: float) -> None:
        gone = {name for name, _ in self._gone}
        open_ = [name for name in self._parameters if self._may_go(name, gone)]
        if not open_:
            raise Unsupported(f"pruning: {ratio} of the parameters cannot go as whole blocks: one must stay in a stack")
        if gone:
            open_ = sorted(open_, key=self._last.__getitem__)[: self._candidates]
        for name in open_:
            self._last[name] = self._divergence(self._without({*gone, name}))
        cheapest = min(open_, key=self._last.__getitem__)
        self._gone.append((cheapest, self._last[cheapest]))

    def _may_go(self, name: str, gone: set[str]) -> bool:
        if name not in self._last or name in gone:
            return False
        left = Counter(other.rpartition(".")[0] for other in self._parameters if other not in gone)
        path = name.rpartition(".")[0]
        covered = next(stack.covers for stack in self._model.family.stacks if stack.layers == path)
        return left[path] > max(1, left[covered])

    def _without(self, gone: set[str]) -> LoadedModel:
        model = self._model.sharing()
        _remove_(model, gone)
        return model


def _fixed(model: LoadedModel, stack: Stack) -> Collection[int]:
    """Return the indices of the blocks of a stack that must stay."""
    return stack.fixed if stack.depth else model.layers_of(stack)


def _remove_(model: LoadedModel, gone: Collection[str]) -> None:
    from objectives.pruning.surgery import keep_layers_

    for stack in model.family.stacks:
        layers = model.layers_of(stack)
        kept = [index for index in layers if f"{stack.layers}.{index}" not in gone]
        if len(kept) < len(layers):
            keep_layers_(model, stack, kept)
