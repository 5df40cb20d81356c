"""Structured pruning inside each block: FFN channels and KV groups compete for the same share of parameters.

For every possible number of KV groups the cheapest FFN channels that complete the block's share are found;
the split with the least removed output energy wins. Widths stay multiples of ``multiple_of``, since odd widths
cost what pruning gained (BERT fp32 at 30 %: 1.23x unrounded, 1.42x rounded). Every block loses the same share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings

from objectives.errors import Unsupported
from objectives.settings import FORBID, Count, Positive, Ratio

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.calibration import Moments
    from objectives.families import Block
    from objectives.models import LoadedModel


@dataclass(frozen=True)
class Split:
    """How many KV groups and FFN channels a block keeps, and the output energy it loses."""

    groups: int
    channels: int
    loss: float


@dataclass(frozen=True)
class BlockSizes:
    """Weights of one KV group (with its query heads), of one FFN channel, and how many there are."""

    group: int
    channel: int
    groups: int
    channels: int

    @classmethod
    def of(cls, block: Block) -> BlockSizes:
        """Read from the unpruned block."""
        hidden = block.linear(block.family.ffn_out).out_features
        group = 2 * (block.group_width + block.head_dim) * hidden
        return cls(group, (len(block.family.ffn_in) + 1) * hidden, block.groups, block.channels)

    @property
    def parameters(self) -> int:
        """Weights of the whole block."""
        return self.group * self.groups + self.channel * self.channels

    def kept(self, split: Split) -> int:
        """Weights that remain."""
        return self.group * split.groups + self.channel * split.channels


@settings(frozen=True, kw_only=True, config=FORBID)
class Structured:
    """Remove ``ratio`` of the block parameters.

    ``criterion``: ``activation`` (output energy) or ``magnitude`` (weight norms, the reference). ``ridge``:
    strength of the pull towards the original weights in the reconstruction, relative to the activations'
    power; ``reconstruction`` ``none`` only cuts. ``multiple_of``: FFN widths, in channels.
    """

    ratio: Ratio = 0.0
    criterion: Literal["activation", "magnitude"] = "activation"
    reconstruction: Literal["least_squares", "none"] = "least_squares"
    ridge: Positive = 0.01
    multiple_of: Count = 32

    def prune_(self, model: LoadedModel, moments: Moments) -> None:
        """See ``objectives.types.Pruner``."""
        if self.ratio == 0:
            return
        model.widths = []
        owed = 0.0  # parameters still to remove: rounding in one block is made good in the next
        for block in model.blocks():
            sizes = BlockSizes.of(block)
            owed += self.ratio * sizes.parameters
            split = self._prune_block_(model, block, sizes, owed, moments)
            owed -= sizes.parameters - sizes.kept(split)
            model.widths.append((split.groups, split.channels))

    def _prune_block_(
        self, model: LoadedModel, block: Block, sizes: BlockSizes, budget: float, moments: Moments
    ) -> Split:
        from objectives.pruning import surgery

        family = block.family
        group_scores, channel_scores = self._scores(block, moments)
        split = choose_split(group_scores, channel_scores, sizes, budget, self.multiple_of)
        if split is None:
            raise Unsupported(
                f"pruning.ratio {self.ratio} cannot be met in {block.name}: "
                f"one KV group and {self.multiple_of} FFN channels must stay"
            )
        groups = group_scores.topk(split.groups).indices.sort().values
        channels = channel_scores.topk(split.channels).indices.sort().values
        group_channels = surgery.group_channels(groups, block.group_width)
        self._cut_consumer_(model, block, family.attention_out, group_channels, moments)
        surgery.keep_groups_(block, groups)
        self._cut_consumer_(model, block, family.ffn_out, channels, moments)
        surgery.keep_channels_(block, channels)
        return split

    def _scores(self, block: Block, moments: Moments) -> tuple[Tensor, Tensor]:
        """Worth of each KV group and of each FFN channel."""
        from objectives.pruning import scores

        found = []
        for path, width in ((block.family.attention_out, block.group_width), (block.family.ffn_out, 1)):
            weight = block.linear(path).weight
            if self.criterion == "activation":
                found.append(scores.activation_scores(weight, moments[block.name, path].second, width))
            else:
                found.append(scores.magnitude_scores(weight, width))
        return found[0], found[1]

    def _cut_consumer_(self, model: LoadedModel, block: Block, path: str, kept: Tensor, moments: Moments) -> None:
        from objectives.pruning import reconstruction, surgery

        linear = block.linear(path)
        if len(kept) == linear.in_features:
            return
        weight: Tensor = linear.weight[:, kept]
        bias: Tensor | None = linear.bias
        if self.reconstruction == "least_squares":
            moment = moments[block.name, path]
            weight, bias = reconstruction.reconstruct(linear.weight, linear.bias, moment, kept, self.ridge)
        surgery.set_inputs_(linear, weight, bias)
        model.kept_inputs[block.name, path] = kept


def choose_split(groups: Tensor, channels: Tensor, sizes: BlockSizes, budget: float, multiple: int) -> Split | None:
    """The split of one block that removes about ``budget`` parameters at the least loss of output energy.

    ``groups`` [g], ``channels`` [c]: scores. At least one group and ``multiple`` channels stay; None when the
    budget asks for more than that. Losses are compared per removed parameter, as rounding makes them differ.
    """
    multiple = min(multiple, len(channels))
    group_loss = [0.0, *groups.sort().values.cumsum(0).tolist()]
    channel_loss = [0.0, *channels.sort().values.cumsum(0).tolist()]
    splits = []
    for removed in range(len(groups)):
        wanted = len(channels) - (budget - removed * sizes.group) / sizes.channel
        rounded = round(wanted / multiple) * multiple
        kept = min(rounded, len(channels), key=lambda width: abs(width - wanted))
        if kept < multiple or wanted > len(channels) + multiple / 2:
            continue
        kept = min(kept, len(channels))
        split = Split(len(groups) - removed, kept, group_loss[removed] + channel_loss[len(channels) - kept])
        splits.append((split.loss / max(sizes.parameters - sizes.kept(split), 1), split))
    return min(splits, key=lambda pair: pair[0])[1] if splits else None
