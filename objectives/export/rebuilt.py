"""Attributes and buffers, beside the weights, in which a model that was built anew differs from the measured one.

A block derives more from its config than the shapes of its tensors: scales, windows, kinds of attention, tables of
frequencies. Any of these that differ when the model is built again are kept by name, so that nobody has to know which
attributes matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from objectives.errors import ModelError, Unsupported
from objectives.packing.embedding import Int8Embedding
from objectives.packing.linear import PackedLinear

_OF_ALL_MODULES = frozenset(vars(nn.Module())) | {"_is_hf_initialized"}
_OF_ITS_LIFE = frozenset({"_output_capturing_hooks_installed", "_use_kernels", "_weight_conversions"})
"""Attributes that transformers sets on a module that ran or was loaded: a new module sets them again."""
_Scalar = (bool, int, float, str, type(None))


def differences(measured: nn.Module, rebuilt: nn.Module) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Return the measured model's attributes and buffers that differ in ``rebuilt``.

    These are plain attributes by module, and buffers that are not saved with the weights. Raises Unsupported where a
    module is missing or of another class, or has a function or tensor of its own that cannot be written down.
    """
    attributes: dict[str, dict[str, Any]] = {}
    buffers: dict[str, Tensor] = {}
    others = dict(rebuilt.named_modules())
    for name, module in measured.named_modules():
        other = others.pop(name, None)
        if type(other) is not type(module):
            raise Unsupported(
                f"{name or 'the model'}: built again it is {_kind(other)}, measured was {_kind(module)}; "
                "such a model cannot be written to a folder"
            )
        if isinstance(module, (PackedLinear, Int8Embedding)):
            continue  # the manifest says all of them
        changed = dict(_changed(name, module, other))
        if changed:
            attributes[name] = changed
        buffers |= {
            f"{name}.{key}" if name else key: buffer.contiguous().clone()
            for key, buffer in module.named_buffers(recurse=False)
            if key in module._non_persistent_buffers_set and not _same(buffer, getattr(other, key, None))
        }
    if others:
        raise Unsupported(f"{next(iter(others))}: built again the model has it, measured it had none")
    return attributes, buffers


def set_attributes_(module: nn.Module, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the attributes of the modules of ``module`` that :func:`differences` returned.

    Raises ModelError for what it cannot have returned: another kind of value, or an attribute that would hide a method,
    a weight or a submodule.
    """
    for name, changed in attributes.items():
        part = module.get_submodule(name)
        for key, value in changed.items():
            if key in _OF_ITS_LIFE:  # folders from before 2026-11-28 hold them
                continue
            present = vars(part).get(key, getattr(type(part), key, None))
            if (
                key in _OF_ALL_MODULES
                or key in {*part._parameters, *part._buffers, *part._modules}
                or not (_is_plain(value) and _is_plain(present))
            ):
                raise ModelError(f"attributes of {name or 'the model'}: {key!r} is none that may be set there")
            setattr(part, key, tuple(value) if isinstance(present, tuple) else value)


def _changed(name: str, module: nn.Module, other: Any) -> Iterator[tuple[str, Any]]:
    for key, value in vars(module).items():
        if key in _OF_ALL_MODULES or key in _OF_ITS_LIFE or (key.startswith("_") and key not in vars(other)):
            continue
        rebuilt = vars(other).get(key)
        if _is_plain(value):
            if key not in vars(other) or not _same(value, rebuilt):
                yield key, value
        elif (isinstance(value, Tensor) or callable(value)) and not _same(value, rebuilt):
            raise Unsupported(f"{name}.{key}: built again it differs, and cannot be written to a folder")


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    return isinstance(value, _Scalar)


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(other, Tensor) and value.dtype == other.dtype and torch.equal(value, other)
    if callable(value):
        return _named(value) == _named(other)
    return type(value) is type(other) and (value == other or value != value)


def _named(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _kind(module: Any) -> str:
    return "absent" if module is None else f"a {type(module).__name__}"
