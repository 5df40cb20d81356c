"""The layouts that pruning may leave, and which stock engines load each: data, without torch.

An engine that knows no code of ours reads widths from a config. Most configs have one number for all blocks; a few have
one for every block, in steps of their own. What is said of engines was collected in November 2026: ``tried`` are those
that answered here, ``by_code`` those whose released code reads such a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

LayoutName = Literal["free", "deci", "uniform"]


@dataclass(frozen=True)
class Layout:
    """The shapes that a layout allows.

    ``channels``: FFN widths are multiples of at least so many; ``heads``: whether heads may go; ``tied``: whether all
    blocks of a stack keep equal widths. ``stays``: what a refusal says must stay, with the step of the widths in it.
    ``tried``, ``by_code``: stock engines that load it; ``not_by``: those that do not.
    """

    channels: int
    heads: bool
    tied: bool
    stays: str
    tried: tuple[str, ...]
    by_code: tuple[str, ...]
    not_by: tuple[str, ...]

    def step(self, multiple_of: int) -> int:
        """Return the step of FFN widths: the least multiple of ``multiple_of`` that the layout takes."""
        if self.tied:
            return -(-self.channels // multiple_of) * multiple_of
        return math.lcm(self.channels, multiple_of)


OURS = ("torch", "OpenVINO", "ONNX Runtime", "LiteRT")
"""The engines whose files we write ourselves; they take any widths."""

LAYOUTS: Mapping[LayoutName, Layout] = MappingProxyType(
    {
        "free": Layout(
            1, heads=True, tied=False, stays="one KV group and {} FFN channels must stay in every block",
            tried=("llama.cpp (deci)",), by_code=(),
            not_by=("transformers", "vLLM", "SGLang", "TensorRT-LLM"),
        ),
        "deci": Layout(
            256, heads=False, tied=False,
            stays="layout=deci keeps all heads, and {} FFN channels in every block; layout=free removes more",
            tried=("llama.cpp (deci)", "vLLM (DeciLM)"), by_code=("SGLang", "TensorRT-LLM"),
            not_by=("transformers",),
        ),
        "uniform": Layout(
            64, heads=True, tied=True,
            stays="layout=uniform keeps one KV group, or all heads where the model's config can say no fewer, and "
            "{} FFN channels in every block; layout=free removes more",
            tried=("transformers", "vLLM", "llama.cpp (llama)"), by_code=("SGLang", "TensorRT-LLM"), not_by=(),
        ),
    }
)  # fmt: skip


def loaded_by(name: LayoutName) -> str:
    """Say in one line which engines load models of a layout."""
    layout = LAYOUTS[name]
    unseen = f"; by their code, not tried: {', '.join(layout.by_code)}" if layout.by_code else ""
    refused = f"; not by {', '.join(layout.not_by)}" if layout.not_by else ""
    return f"loaded by {', '.join(layout.tried)}{unseen}{refused}; from files of ours by {', '.join(OURS)}"
