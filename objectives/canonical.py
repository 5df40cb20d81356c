"""One form for all models: whatever transformers builds in its own way is brought to what the rest expects.

Four things differ. GPT-2 keeps its weights in ``Conv1D``, [in, out]: they become linears, exact but for the order of
summation. Experts of one tensor become linears too (:mod:`objectives.experts`). So do modules whose class only derives
from a linear, where they do what a linear does; routers do more, and stay. And some attributes do not fit blocks
with unequal heads: a family lists what they have to be, and what each block needs for itself. What no family describes
gets a description of its linears here.
"""

from __future__ import annotations

import copy
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from objectives.anatomy import Family
from objectives.errors import Unsupported
from objectives.experts import Experts, are_together
from objectives.families import described, refusal
from objectives.models import LoadedModel
from objectives.undescribed import description


def canonicalize_(model: LoadedModel) -> LoadedModel:
    """Bring a freshly loaded model, or an empty one, to the form that pruners, packing and checkpoints work on."""
    for name, module in list(model.module.named_modules()):
        if isinstance(module, Conv1D):
            model.module.set_submodule(name, _linear(module))
        elif are_together(module):
            model.module.set_submodule(name, Experts(module))
        elif isinstance(module, nn.Linear) and type(module) is not nn.Linear and _multiplies(module):
            model.module.set_submodule(name, _plain(module))
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


def _multiplies(module: nn.Linear) -> bool:
    """Whether a module of a class of its own does with any weights what a linear does."""
    if type(module).forward is nn.Linear.forward:
        return True
    generator = torch.Generator().manual_seed(0)
    values = {
        name: nn.Parameter(torch.randn(old.shape, generator=generator), requires_grad=False)
        for name, old in module.named_parameters(recurse=False)
    }
    probe = copy.copy(module)
    probe._parameters = dict(values)
    rows = torch.randn(1, 3, module.in_features, generator=generator)
    try:
        answer = probe(rows)
    except Exception:  # it reads something else: no linear, whatever it is
        return False
    wanted = linear(rows, values["weight"], values.get("bias"))
    return isinstance(answer, Tensor) and answer.shape == wanted.shape and torch.allclose(answer, wanted, atol=1e-3)


def _plain(module: nn.Linear) -> nn.Linear:
    made = nn.Linear(module.in_features, module.out_features, bias=False, device="meta").train(module.training)
    made.weight, made.bias = module.weight, module.bias
    return made


def _linear(conv: Conv1D) -> nn.Linear:
    made = nn.Linear(conv.nx, conv.nf, device="meta").train(conv.training)
    made.weight = nn.Parameter(conv.weight.detach().t().contiguous(), requires_grad=False)
    made.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return made
