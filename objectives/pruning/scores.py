"""What a channel, or a group of channels, is worth to the residual stream.

The consumer W reads channels x; removing the set S changes its output by W_S x_S, whose mean square is
tr(W_S E[x_S x_S^T] W_S^T). That is the score: measured in squares of the residual stream, so attention groups
and FFN channels of one block can be compared. Sun et al., Wanda, https://arxiv.org/abs/2306.11695, use the
same product per weight; An et al., FLAP, https://arxiv.org/abs/2312.11983, per structure.
"""

from __future__ import annotations

from torch import Tensor


def activation_scores(weight: Tensor, second: Tensor, width: int = 1) -> Tensor:
    """Output energy of each run of ``width`` input channels.

    ``weight``: [out, k], ``second``: E[x x^T] as [k, k]; k a multiple of ``width``. Returns [k / width], fp32.
    """
    if width == 1:
        return weight.float().square().sum(dim=0) * second.diagonal()
    gram = weight.float().t() @ weight.float()
    sets = gram.shape[0] // width
    blocks = (gram * second).view(sets, width, sets, width)
    return blocks.diagonal(dim1=0, dim2=2).sum(dim=(0, 1))


def magnitude_scores(weight: Tensor, width: int = 1) -> Tensor:
    """Squared weight norm of each run of ``width`` input channels: the reference that ignores activations."""
    return weight.float().square().sum(dim=0).view(-1, width).sum(dim=1)
