"""One form for all models: whatever transformers builds in its own way is brought to what the rest expects.

Two things differ. GPT-2 keeps its weights in ``Conv1D``, [in, out]: they become linears, exact but for the order of
summation. And some attributes stand in the way of blocks with unequal heads: a family lists what they have to be, and
what each block needs for itself. What no family describes gets a description of its linears here.
"""

from __future__ import annotations

import copy
from operator import attrgetter

from torch import nn
from transformers.pytorch_utils import Conv1D

from objectives.anatomy import Family
from objectives.errors import Unsupported
from objectives.families import described, refusal
from objectives.models import LoadedModel
from objectives.undescribed import description


def canonicalize_(model: LoadedModel) -> LoadedModel:
    """Bring a freshly loaded model, or an empty one, to the form that pruners, packing and checkpoints work on."""
    for name, module in list(model.module.named_modules()):
        if isinstance(module, Conv1D):
            model.module.set_submodule(name, _linear(module))
    if model.row is None and not described(model.module.config.model_type):
        model.row = undescribed(model)
    for block in model.blocks():
        for path in block.stack.copies:
            block.set_attribute_(path, copy.copy(attrgetter(path)(block.module)))
        for path, value in block.stack.constants:
            block.set_attribute_(path, value)
    return model


def undescribed(model: LoadedModel) -> Family:
    """What can be said of a model that no row describes. Raises Unsupported for those that are not taken."""
    reason = refusal(model.module.config.model_type)
    if reason is not None:
        raise Unsupported(reason)
    return description(model.module.base_model)


def _linear(conv: Conv1D) -> nn.Linear:
    linear = nn.Linear(conv.nx, conv.nf, device="meta").train(conv.training)
    linear.weight = nn.Parameter(conv.weight.detach().t().contiguous(), requires_grad=False)
    linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear
