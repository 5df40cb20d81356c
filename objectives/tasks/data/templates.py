"""Templates of Jinja in its sandbox, which cannot run code nor open files, and which come to an end.

A loop within a loop over a long text, or ``range(99999)`` in another, would keep a study waiting without a word; so
would a text that is doubled forty times. So the steps of all loops of a row are counted, whatever they go over, and no
operator, filter or method makes a text beyond ``LONGEST``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes, pass_eval_context
from jinja2.filters import do_join
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from typing_extensions import override

STEPS = 10_000
"""Steps that all loops of a template may take together for one row."""
LONGEST = 1_000_000
"""Characters or items that a multiplied text or list may have."""
LARGEST_POWER = 64
"""The largest exponent."""

_COUNTED, _JOINED = "counted", "joined"
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"})
"""Methods of texts that make one as long as a number says; no template of a row needs them."""
_PADDING_FILTERS = ("center", "format", "indent", "lipsum")


class Templates(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with counted loops; a column that is missing is an error."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        """Make an environment that keeps a template's last newline."""
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_plain)
        for name in _PADDING_FILTERS:
            self.filters.pop(name, None)
            self.globals.pop(name, None)
        self.filters |= {_COUNTED: self._counted, _JOINED: _concatenated, "replace": _replaced, "join": _joined}
        self._steps = 0

    def begin(self) -> None:
        """Count the steps of loops anew, for another row."""
        self._steps = 0

    @override
    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounded().visit(super()._parse(source, name, filename))
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return tree

    @override
    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return ``left operator right``. Raises ValueError for powers and texts of a size that nobody asks for."""
        if operator == "**" and abs(right) > LARGEST_POWER:
            raise ValueError(f"an exponent of {right}, at most {LARGEST_POWER} are computed")
        if operator == "%" and isinstance(left, str):
            raise ValueError("texts are not formatted by % here; write {{a}} and {{b}}")
        for text, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(text, (str, list, tuple)) and isinstance(times, int):
                _require_short(len(text) * times)
        if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _require_short(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    @override
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # Jinja's names
        """Call a method or function. Raises ValueError for a method of texts that would make one beyond measure."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace" and len(args) > 1:
            return _replaced(owner, *args)
        if isinstance(owner, str) and name == "join" and args:
            items = [str(_plain(each)) for each in args[0]]
            _require_short(sum(map(len, items)) + len(owner) * len(items))
            args = (items,)
        return super().call(__context, __obj, *args, **kwargs)

    @override
    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what ``obj.attribute`` is: of an object in a row its value, also where a method has that name."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    @override
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use an attribute: no method that pads a text."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    @override
    def wrap_str_format(self, value: Any) -> None:
        """Return nothing: no ``format`` of texts takes the place of the one that is not safe."""

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._steps += 1
            if self._steps > STEPS:
                raise ValueError(f"its loops take more than {STEPS} steps for one row")
            yield item


class _Bounded(NodeTransformer):
    """Puts a filter of ours in the place of ``~``, which Jinja lets nobody intercept."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  # Jinja's name
        """Return the filter that joins the operands."""
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED, [], [], None, None, lineno=node.lineno)


def _require_short(length: int) -> None:
    if length > LONGEST:
        raise ValueError(f"a text or list of {length}, at most {LONGEST} characters or items are made")


def _plain(value: Any) -> Any:
    """Return what is written of a value: nothing of null. Raises ValueError for what is no value of a row."""
    if isinstance(value, Undefined):
        return value  # says itself what is missing
    if callable(value) or isinstance(value, (LoopContext, TemplateReference)):
        name = getattr(value, "__name__", None)
        raise ValueError(f"{name} is a method, called as {name}()" if name else "self and loop are Jinja's own names")
    return "" if value is None else value


@pass_eval_context
def _joined(context: EvalContext, parts: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    """Join as Jinja's own filter does, whose names these are; null is nothing."""
    items = [_plain(each) for each in parts] if attribute is None else list(parts)
    _require_short(len(items) * len(str(d)) + (sum(len(str(each)) for each in items) if attribute is None else 0))
    return str(do_join(context, items, d, attribute))


def _concatenated(parts: Iterable[Any]) -> str:
    texts = [str(_plain(each)) for each in parts]
    _require_short(sum(map(len, texts)))
    return "".join(texts)


def _replaced(text: Any, old: str, new: str, count: int | None = None) -> str:
    whole, most = str(text), -1 if count is None else count
    found = whole.count(old) if most < 0 else min(most, whole.count(old))
    _require_short(len(whole) + found * (len(new) - len(old)))
    return whole.replace(old, new, most)
