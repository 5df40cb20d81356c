"""The trade-off f(v, r): one number for what a candidate's speed and memory are worth; lower is better.

The front leaves the choice open; a trade-off makes it, among feasible points only, so accuracy needs no
weight. Every trade-off sees a measurement and the baseline's. The default compares logarithms of ratios to the
baseline: twice as fast counts as much as half the memory, and units do not matter.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Protocol, runtime_checkable

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from objectives.metrics import METRICS, is_of_memory, is_of_time

_STRICT = ConfigDict(extra="forbid")
_LONGEST = 300

Weights = dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class MissingMetricError(ValueError):
    """The trade-off names a metric that the measurement does not have."""


class Tradeoff(Protocol):
    """Ranks measurements against the baseline."""

    def __call__(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
        """Return f, lower is better, +inf where it has no finite value; raises ``MissingMetricError``."""


@runtime_checkable
class Weighing(Protocol):
    """A trade-off that says whether it weighs memory or speed more."""

    @property
    def asks_for_memory(self) -> bool:
        """Return whether memory counts for more than speed."""


def asks_for_memory(tradeoff: Tradeoff, objectives: Sequence[str]) -> bool:
    """Return whether a candidate that is slower than the dense model may be recommended for its memory.

    It may where no objective is a speed, where the weights of memory outweigh those of speed, and where the trade-off
    does not say (an expression or a user's own), and so is followed as it is. By default both weigh the same, so memory
    is not asked for.
    """
    if not any(map(is_of_time, objectives)):
        return True
    return tradeoff.asks_for_memory if isinstance(tradeoff, Weighing) else True


def validate_names(names: Mapping[str, object]) -> None:
    """Raise ``ValueError``, with the nearest known name, where a name is not in ``METRICS``."""
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown metric {name!r} in the trade-off; {hint}`paretune metrics` lists them")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Weighted:
    """The shared part of trade-offs that have ``weights`` of metrics."""

    weights: Weights

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: Weights) -> Weights:
        validate_names(weights)
        return weights

    @property
    def asks_for_memory(self) -> bool:
        """Return whether the weights of memory outweigh those of speed."""
        of_memory = sum(weight for name, weight in self.weights.items() if is_of_memory(name))
        return of_memory > sum(weight for name, weight in self.weights.items() if is_of_time(name))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class WeightedLogRatio(Weighted):
    """The sum of weight * log(ratio to the baseline), each ratio above 1 where the candidate is worse."""

    weights: Weights = Field(default_factory=lambda: {"throughput": 0.5, "peak_memory": 0.5}, min_length=1)

    def __call__(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
        """Return f; 0 is the baseline, negative is better."""
        return _or_infinity(sum(_weighted_log_ratios(self.weights, metrics, baseline)))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Chebyshev(Weighted):
    """The worst weighted log-ratio, plus 1e-3 of their sum.

    It asks for balance: a point is as good as its weakest side. The small sum breaks ties towards points that
    are not dominated (Steuer and Choo 1983, https://doi.org/10.1007/BF02591870).
    """

    weights: Weights = Field(default_factory=lambda: {"throughput": 1.0, "peak_memory": 1.0}, min_length=1)

    def __call__(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
        """Return f; 0 is the baseline, negative is better on every side."""
        terms = _weighted_log_ratios(self.weights, metrics, baseline)
        return _or_infinity(max(terms) + 1e-3 * sum(terms))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Expression:
    """Arithmetic over metric names, such as ``peak_memory / throughput``; lower is better.

    Allowed: numbers, metric names (``latency.p95``), the baseline's (``baseline.throughput``), ``+ - * / **``
    and ``log sqrt min max abs``. The text is parsed, never run.
    """

    expression: str

    @field_validator("expression")
    @classmethod
    def _allowed(cls, expression: str) -> str:
        _parse(expression)
        return expression

    def __call__(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
        """Return the value; a division by zero, a root of a negative or an overflow counts as +inf."""
        tree, names = _parse(self.expression)
        scope = {}
        for name in names:
            source, key = (baseline, name.removeprefix("baseline.")) if _of_baseline(name) else (metrics, name)
            scope[name] = _value(source, key, "the baseline" if _of_baseline(name) else "the measurement")
        try:
            return _or_infinity(_compute(tree, scope))
        except (ArithmeticError, ValueError):
            return math.inf


def _weighted_log_ratios(
    weights: Mapping[str, float], metrics: Mapping[str, float], baseline: Mapping[str, float]
) -> list[float]:
    return [weight * _log_ratio(name, metrics, baseline) for name, weight in weights.items()]


def _log_ratio(name: str, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    value = _value(metrics, name, "the measurement")
    start = _value(baseline, name, "the baseline")
    if not (value > 0 and start > 0):
        return math.inf
    log_ratio = math.log(value) - math.log(start)
    return -log_ratio if METRICS[name].higher_is_better else log_ratio


def _value(metrics: Mapping[str, float], name: str, where: str) -> float:
    if name not in metrics:
        present = ", ".join(sorted(metrics)) or "nothing"
        raise MissingMetricError(f"the trade-off needs {name!r}, which {where} does not have; it has: {present}")
    return float(metrics[name])


def _or_infinity(value: float) -> float:
    return value if math.isfinite(value) else math.inf


# Only floats are computed with, so that an exponent can overflow (caught) but never build a huge integer;
# math.pow raises where ** would turn complex.
_OPERATORS: Mapping[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: math.pow,
}
_FUNCTIONS: Mapping[str, tuple[Callable[..., float], int, int]] = {
    "log": (math.log, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "min": (min, 2, 9),
    "max": (max, 2, 9),
    "abs": (abs, 1, 1),
}


def _of_baseline(name: str) -> bool:
    return name.startswith("baseline.")


@lru_cache(maxsize=64)
def _parse(expression: str) -> tuple[ast.expr, frozenset[str]]:
    """Return the checked tree and the dotted names in it. Raises ``ValueError`` naming what is not allowed."""
    if len(expression) > _LONGEST:
        raise ValueError(f"the trade-off expression has {len(expression)} characters, {_LONGEST} are allowed")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        names = frozenset(_names(tree))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the trade-off expression {expression!r} is not arithmetic: {error}") from None
    validate_names({name.removeprefix("baseline."): None for name in sorted(names)})
    return tree, names


def _names(node: ast.expr) -> list[str]:
    """Check ``node`` against the allow-list and collect its dotted names."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float()):
            return []
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return _names(left) + _names(right)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _names(operand)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            found = [dotted for argument in arguments for dotted in _names(argument)]
            _, fewest, most = _FUNCTIONS[name]
            if not fewest <= len(arguments) <= most:
                wanted = "one value" if most == 1 else f"{fewest} to {most} values"
                raise ValueError(f"{name}() in the trade-off takes {wanted}, got {len(arguments)}")
            return found
        case ast.Name() | ast.Attribute() if dotted := _dotted(node):
            return [dotted]
    raise ValueError(
        f"{ast.unparse(node)!r} is not allowed in a trade-off expression; allowed: numbers, metric names, "
        f"baseline.<metric>, + - * / ** and {' '.join(_FUNCTIONS)}"
    )


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def _compute(node: ast.expr, scope: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.BinOp(left=left, op=operator, right=right):
            return _OPERATORS[type(operator)](_compute(left, scope), _compute(right, scope))
        case ast.UnaryOp(operand=operand):
            return -_compute(operand, scope)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return float(_FUNCTIONS[name][0](*(_compute(argument, scope) for argument in arguments)))
    return scope[_dotted(node)]
