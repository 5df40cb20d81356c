"""Checks that an object of a user's class has the members of the protocol that its place needs.

Nothing is run: every member has to be there, a method has to take the arguments of the protocol's, and a property must
not be a method. Errors that only show at run time are found by ``paretune check`` and before the first trial.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import get_protocol_members

from objectives.errors import described
from objectives.protocols.candidate import KeyValues, Pruner, Quantizer, Recovery, Runtime
from objectives.protocols.running import Workload
from objectives.settings import class_path
from search.errors import ConfigError

PARTS: Mapping[str, type] = {
    "pruning": Pruner,
    "recovery": Recovery,
    "quantization": Quantizer,
    "workload": Workload,
    "runtime": Runtime,
    "kv": KeyValues,
}
"""The protocol that the object of each part of a candidate must have."""


def require_members(part: Any, key: str, kind: str, protocol: type) -> None:
    """Raise ConfigError that names the class of ``part``, what it lacks, and the protocol of ``kind`` with its file."""
    wrong = [text for name in sorted(get_protocol_members(protocol)) if (text := _wrong(part, name, protocol))]
    if wrong:
        file = protocol.__module__.replace(".", "/") + ".py"
        raise ConfigError(
            f"{key}: {class_path(part)} is no {kind}: it has {'; '.join(wrong)} ({file}: {protocol.__name__})"
        )


def _wrong(part: Any, name: str, protocol: type) -> str:
    """Return what is wrong with one member; empty where nothing is wrong."""
    wanted = inspect.getattr_static(protocol, name, None)
    has_it = any(name in vars(kind) for kind in type(part).__mro__) or name in getattr(part, "__dict__", {})
    if not has_it and not (hasattr(type(part), "__getattr__") or name in getattr(type(part), "__slots__", ())):
        return f"no {name}"
    if not callable(wanted):
        plain = inspect.isfunction(inspect.getattr_static(part, name, None))
        return f"{name} as a method, which must be a property" if plain else ""
    method = getattr(part, name, None)
    return "" if callable(method) and _takes(method, wanted) else f"no {name}{_arguments(wanted)}"


def _takes(method: Callable[..., Any], wanted: Callable[..., Any]) -> bool:
    """Return whether ``method`` takes the arguments of ``wanted``, its first one aside."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return True
    parameters = list(inspect.signature(wanted).parameters.values())[1:]
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    names = {one.name: None for one in parameters if one.kind is one.KEYWORD_ONLY}
    try:
        signature.bind(*[None for one in places if one.default is one.empty], **names)
    except TypeError:
        return False
    return True


def _arguments(wanted: Callable[..., Any]) -> str:
    names = [name for name in inspect.signature(wanted).parameters if name != "self"]
    return f"({', '.join(names)})"


def require_sendable(part: Any, key: str) -> None:
    """Raise ConfigError where ``part`` cannot be sent to a worker process."""
    try:
        pickle.dumps(part)
    except Exception as error:
        raise ConfigError(
            f"{key}: {class_path(part)} cannot be sent to the worker ({described(error)}); "
            "keep settings in its fields and load data when it is asked"
        ) from error


def require_equality(part: Any, key: str) -> None:
    """Raise ConfigError where a part of a candidate is not equal to, or not hashed as, a copy of itself."""
    try:
        same = pickle.loads(pickle.dumps(part))
        equal = same == part and hash(same) == hash(part)
    except TypeError:
        equal = False
    if not equal:
        raise ConfigError(
            f"{key}: {class_path(part)} has no equality by its settings, by which results are shared; "
            "make it a @dataclass(frozen=True)"
        )
