"""Brings all models to one form: transformers builds some of them in ways that the rest of the code does not expect.

Four things differ. GPT-2 keeps its weights in ``Conv1D``, [in, out]: they become linears, exact but for the order of
summation. Experts of one tensor become linears too (:mod:`objectives.models.experts`). So do modules whose class only
derives from a linear, where they do what a linear does; routers do more, and stay. And some attributes do not fit
blocks with unequal heads: a family lists what they have to be, and what each block needs for itself. A model
that no family describes gets a description of its linears here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from objectives.errors import Unsupported
from objectives.models.anatomy import Family
from objectives.models.blocks import Block
from objectives.models.experts import Experts, are_fused
from objectives.models.families import described, family_of, refusal
from objectives.models.loaded_model import LoadedModel
from objectives.models.undescribed import description


def canonicalize_(model: LoadedModel) -> LoadedModel:
    """Bring a freshly loaded model, or an empty one, to the form that pruners, packing and checkpoints work on."""
    replacements: dict[int, nn.Module | None] = {}
    for name, module in list(model.module.named_modules(remove_duplicate=False)):
        if id(module) not in replacements:
            replacements[id(module)] = _replacement(module)
        new = replacements[id(module)]
        if new is not None:
            model.module.set_submodule(name, new)
    if model.row is None and not described(model.module.config.model_type):
        model.row = undescribed(model)
    _require_parts(model)
    for block in model.blocks():
        _require_linears(model, block)
        for path in block.stack.copies:
            block.set_attribute_(path, copy.copy(attrgetter(path)(block.module)))
        for path, value in block.stack.constants:
            block.set_attribute_(path, value)
    return model


def undescribed(model: LoadedModel) -> Family:
    """Describe a model that has no row by its linears alone. Raises Unsupported for a type that is refused."""
    reason = refusal(model.module.config.model_type)
    if reason is not None:
        raise Unsupported(reason)
    return description(model.module.base_model)


def _replacement(module: nn.Module) -> nn.Module | None:
    """Return the module that replaces ``module``; None where it stays."""
    if isinstance(module, Conv1D):
        return _linear(module)
    if are_fused(module):
        return Experts(module)
    if isinstance(module, nn.Linear) and type(module) is not nn.Linear and _multiplies(module):
        return _plain(module)
    return None


def _require_parts(model: LoadedModel) -> None:
    """Raise Unsupported where a row describes attention or an FFN that no block has."""
    kind = model.module.config.model_type
    row = model.row or family_of(kind)
    for stack, found in zip(row.stacks, model.family.stacks, strict=True):
        for named, present in ((stack.attentions, found.attentions), (stack.ffns, found.ffns)):
            if named and not present:
                where = f"in any of {stack.layers}"
                raise Unsupported(
                    f"model.families: {kind} has no linear {named[0].out} {where}: this row is not for it"
                )


def _require_linears(model: LoadedModel, block: Block) -> None:
    """Raise Unsupported where a row names a linear that is none, or would cut gates that are not halves."""
    kind = model.module.config.model_type
    for path in block.stack.block_linears:
        try:
            found: object = block.module.get_submodule(path)
        except AttributeError:
            found = None
        if not isinstance(found, nn.Linear):
            raise Unsupported(f"model.families: {kind} has no linear {path} in {block.name}: this row is not for it")
    interleaved = [name for name, part in block.module.named_modules() if isinstance(part, Experts) and not part.halves]
    fused = [ffn for ffn in block.stack.ffns if len(set(ffn.inputs)) < len(ffn.inputs)]
    if any(ffn.out.startswith(f"{name}.") for ffn in fused for name in interleaved):
        raise Unsupported(f"model.families: {kind} interleaves the gates of its experts: no row describes that yet")


def _multiplies(module: nn.Linear) -> bool:
    """Return whether a module whose class derives from a linear computes what a linear does, whatever its weights."""
    parameters = {name: value for name in ("weight", "bias") if (value := module._parameters.get(name)) is not None}
    hooked = module._forward_hooks or module._forward_pre_hooks or type(module).__call__ is not nn.Module.__call__
    if "weight" not in parameters or hooked:
        return False
    if type(module).forward is nn.Linear.forward:
        return True
    generator = torch.Generator().manual_seed(0)
    try:
        probe = copy.deepcopy(module)
        return all(_answers_as_linear(probe, parameters, size, generator) for size in (1.0, 300.0))
    except Exception:  # it reads something else: no linear, whatever it is
        return False


def _answers_as_linear(
    probe: nn.Linear, parameters: Mapping[str, Tensor], size: float, generator: torch.Generator
) -> bool:
    """Return whether ``probe`` computes what a linear does for random weights and rows as large as ``size``.

    ``probe`` gets these weights, in its own dtype.
    """
    values = {
        name: nn.Parameter((torch.randn(old.shape, generator=generator) * size).to(old.dtype), requires_grad=False)
        for name, old in parameters.items()
    }
    probe._parameters.update(values)
    rows = (torch.randn(4, 3, probe.in_features, generator=generator) * size).to(probe.weight.dtype)
    wanted, answer = linear(rows, values["weight"], values.get("bias")), probe(rows)
    if type(answer) is not Tensor or (answer.shape, answer.dtype) != (wanted.shape, wanted.dtype):
        return False
    return torch.allclose(answer.float(), wanted.float(), rtol=0.05, atol=0.05 * size * size)


def _plain(module: nn.Linear) -> nn.Linear:
    plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta").train(module.training)
    plain.weight, plain.bias = module.weight, module.bias
    return plain


def _linear(conv: Conv1D) -> nn.Linear:
    plain = nn.Linear(conv.nx, conv.nf, device="meta").train(conv.training)
    plain.weight = nn.Parameter(conv.weight.detach().t().contiguous(), requires_grad=False)
    plain.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return plain
