"""The field types of settings: the range of a number in a yaml, and how strongly it compresses.

Construction checks and raises; it never converts text to numbers, so ``batch_size=abc`` and ``ratio='0.1'``
are refused where they stand. A setting that decides how much is compressed declares it by a :class:`Strength`
among the annotations of its field; its name says nothing, unless the class declares none (:data:`UNDECLARED`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field

FORBID = ConfigDict(extra="forbid")
"""Config of every settings class: an unknown key is an error, not a silence."""

Count = Annotated[int, Field(strict=True, ge=1)]
Natural = Annotated[int, Field(strict=True, ge=0)]
Ratio = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(strict=True, min_length=1)]


def _as_text(value: Any) -> Any:
    """Return a number of a yaml as its text. A truth value has none: ``true`` and ``True`` are words of their own."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Texts = tuple[Annotated[Name, BeforeValidator(_as_text)], ...]
"""Names of classes or of choices."""


@dataclass(frozen=True)
class Strength:
    """Declares how strongly a setting compresses: ``ratio: Annotated[float, Strength(neutral=0.0, harder=+1)]``.

    ``neutral``: the value that does nothing; the baseline has it, whatever is configured or searched. ``harder``: in
    which direction of the value accuracy is assumed only to fall, 1 or -1. ``uneven``: values have kernels of their
    own, as bit widths do, so that neighbours need not be alike in speed. Raises ValueError for another ``harder``.
    """

    neutral: int | float
    harder: Literal[1, -1]
    uneven: bool = False

    def __post_init__(self) -> None:
        """Refuse a ``harder`` that is no direction."""
        if self.harder not in (1, -1):
            raise ValueError(f"Strength.harder: 1 or -1 expected, got {self.harder!r}")

    def is_set(self, value: object) -> bool:
        """Return whether ``value`` does anything; a setting that is None leaves it to others."""
        return value is not None and value != self.neutral


UNDECLARED: Mapping[str, Mapping[str, Strength]] = {
    "pruning": dict.fromkeys(("ratio", "attention_ratio", "ffn_ratio"), Strength(neutral=0.0, harder=+1)),
    "quantization": dict.fromkeys(("bits", "embeddings"), Strength(neutral=16, harder=-1, uneven=True)),
    "recovery": {"seconds": Strength(neutral=0.0, harder=-1)},
}
"""The strengths, by part, that settings of these names have in a class that declares no strength at all."""


@cache
def strengths_of(target: Callable[..., object], part: str) -> Mapping[str, Strength]:
    """Return the strengths of a class's settings, or of a function's arguments, by name; empty where it has none.

    ``part``: the part of a candidate that ``target`` makes (``pruning``). Where nothing is declared, the names in
    :data:`UNDECLARED` count. A subclass that redefines a field keeps its strength unless it declares another. Raises
    TypeError for an annotation that speaks of a Strength and cannot be read.
    """
    declared = {
        name: strength
        for owner in _owners(target)
        for name, hint in getattr(owner, "__dict__", {}).get("__annotations__", _no_hints(owner)).items()
        if (strength := _strength_in(_resolved(hint, name, owner))) is not None
    }
    if declared:
        return MappingProxyType(declared)
    return MappingProxyType({name: each for name, each in UNDECLARED.get(part, {}).items() if takes(target, name)})


@cache
def functions_of(target: Callable[..., object]) -> frozenset[str]:
    """Return the settings of a class, or arguments of a function, whose declared type is a function's, by name."""
    return frozenset(
        name
        for owner in _owners(target)
        for name, hint in getattr(owner, "__dict__", {}).get("__annotations__", _no_hints(owner)).items()
        if _is_function(_resolved(hint, name, owner))
    )


def settings_of(target: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    """Return the settings that a class or function takes by name, in order; empty where it does not say."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: each for name, each in _parameters(target).items() if each.kind in named}


def takes(target: Callable[..., object], name: str) -> bool:
    """Return whether a class or function takes a setting called ``name``, as one with ``**settings`` takes any."""
    any_name = any(each.kind is each.VAR_KEYWORD for each in _parameters(target).values())
    return any_name or name in settings_of(target)


def asks_to_prune(pruner: Any) -> bool:
    """Return whether any strength of a pruner is set; if it has none, whether its ``ratio`` is, if any."""
    strengths = strengths_of(pruner.__class__, "pruning")
    if not strengths:
        return bool(getattr(pruner, "ratio", 0))
    return any(each.is_set(getattr(pruner, name, None)) for name, each in strengths.items())


def class_path(value: object) -> str:
    """Return ``module.Class`` of an object, a class or a function, as a yaml names it by ``_target_``."""
    named: Any = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _owners(target: Callable[..., object]) -> Iterator[object]:
    """Yield the objects that may hold annotations, the most general first: a class's bases and their constructors."""
    for owner in reversed(inspect.getmro(target)) if isinstance(target, type) else (target,):
        yield owner
        constructor = vars(owner).get("__init__") if isinstance(owner, type) else None
        if inspect.isfunction(constructor):
            yield constructor


def _no_hints(owner: object) -> Mapping[str, object]:
    """Return the annotations of a function; none of a class, which would show those of its base."""
    return {} if isinstance(owner, type) else getattr(owner, "__annotations__", {})


def _resolved(hint: object, name: str, owner: object) -> object:
    """Return the annotation that a text stands for; None where it needs names that are not there at run time."""
    if not isinstance(hint, str):
        return hint
    module = vars(sys.modules.get(getattr(owner, "__module__", ""), SimpleNamespace()))
    known = dict(vars(owner)) if isinstance(owner, type) else {}
    try:
        return get_type_hints(SimpleNamespace(__annotations__={name: hint}), module, known, include_extras=True)[name]
    except Exception as error:
        if Strength.__name__ not in hint:
            return None
        raise TypeError(f"{class_path(owner)}.{name}: the annotation {hint!r} cannot be read: {error}") from error


def _strength_in(hint: object) -> Strength | None:
    """Return the strength that an annotation holds at any depth, as in ``Annotated[...] | None``; None without one."""
    for each in get_args(hint):
        strength = each if isinstance(each, Strength) else _strength_in(each)
        if strength is not None:
            return strength
    return None


def _is_function(hint: object) -> bool:
    """Return whether an annotation is that of a function at any depth, as in ``Callable[..., float] | None``."""
    return hint is Callable or get_origin(hint) is Callable or any(map(_is_function, get_args(hint)))


@cache
def _parameters(target: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    """Return all parameters; none of what is written in C, nor of a class that has only a protocol's constructor."""
    constructor = inspect.getattr_static(target, "__init__") if isinstance(target, type) else target
    if getattr(constructor, "__module__", "") in ("typing", "typing_extensions"):
        return {}
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
