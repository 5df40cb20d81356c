"""The base of the packed linears of NVIDIA GPUs: shapes, bias, and rows in and out."""

from __future__ import annotations

from torch import Tensor, nn


class GpuLinear(nn.Module):
    """Computes ``y = x W^T + b`` with W ``[out_features, in_features]`` stored packed.

    Subclasses give :meth:`product`.
    """

    weight = None  # some models ask for its type

    def __init__(self, out_features: int, in_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def product(self, rows: Tensor) -> Tensor:
        """Multiply ``rows`` [m, in] by the packed weight and add the bias: [m, out]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [..., in]; the output has the dtype of ``x``."""
        y = self.product(x.reshape(-1, self.in_features))
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Describe the shapes for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
