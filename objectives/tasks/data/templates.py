"""Templates of Jinja in its sandbox, which cannot run code nor open files, and whose loops come to an end.

A loop within a loop over a long text, or ``range(99999)`` in another, would keep a study waiting without a word. So the
steps of all loops of a row are counted, whatever they go over, and texts cannot be multiplied without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

STEPS = 10_000
"""Steps that all loops of a template may take together for one row."""
LONGEST = 1_000_000
"""Characters or items that a multiplied text or list may have."""
LARGEST_POWER = 64
"""The largest exponent."""

_COUNTED = "counted"


class Templates(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with counted loops; a column that is missing is an error."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        """Make an environment that keeps a template's last newline."""
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True)
        self.filters[_COUNTED] = self._counted
        self._steps = 0

    def begin(self) -> None:
        """Count the steps of loops anew, for another row."""
        self._steps = 0

    @override
    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return tree

    @override
    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return ``left operator right``. Raises ValueError for powers and texts of a size that nobody asks for."""
        if operator == "**" and abs(right) > LARGEST_POWER:
            raise ValueError(f"an exponent of {right}, at most {LARGEST_POWER} are computed")
        for text, times in ((left, right), (right, left)):
            if isinstance(text, (str, list, tuple)) and isinstance(times, int) and len(text) * times > LONGEST:
                raise ValueError(f"a text {times} times, at most {LONGEST} characters are made")
        return super().call_binop(context, operator, left, right)

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._steps += 1
            if self._steps > STEPS:
                raise ValueError(f"its loops take more than {STEPS} steps for one row")
            yield item
