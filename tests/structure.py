"""Measures the structure of the code from its syntax trees: ``python -m tests.structure [root]`` prints it.

Counts sizes, circles among files, arrows between packages that run back up, entries at the two roots, and docstrings
that are no sentence. Imports inside functions and those for types alone count like all others; what is imported by a
text is not seen. Who imports a file from another package runs that package's ``__init__`` too, which counts. Fields of
a dataclass are no arguments: it is built by keyword.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

ROOTS = ("search", "objectives", "paretune")

_VERBS = """
accept acquire add admit advance allocate answer append apply ask assert attach average bind bring build calibrate
call cancel capture certify change check choose clear clip close collect combine compare compile complete compose
compress compute confirm connect convert copy count cover create cut decide decode decompose describe detach
discard divide do download draw drive drop dump embed encode end enqueue ensure enter estimate evaluate exclude
expand explain export extend fail fetch fill find finish fit fold follow forget form format fuse gather generate
get give group hash hold ignore import inform initialise insert inspect install interrupt invert join judge keep
kill leave let limit link list listen load locate lock log look make map mark mask measure merge mirror move
multiply name normalise note number obey open order pack pad parse pass pay permute pickle place plan pool predict
prepare print probe prune put quantise quote raise rank read rebuild recalibrate record recover redact reduce
refuse register release reload remember remove rename render repack repeat replace report require reset resolve
restore resume retrain return rewrite round run sample save say scale scan score search see seed select send serve
set settle shift show shrink shuffle skip solve sort split spread start stop store strip sum switch synchronise
take tell test tie time total trace track train transpose trim try turn unpack update use validate verify wait
walk warm warn watch weigh widen wrap write yield
"""
VERBS = frozenset(_VERBS.split())
"""The imperatives with which the docstring of a function may begin."""

_FRAGMENTS = """
of as that where whether which what why how when who whose whom in by with without from for to at on if because
than those these beside beyond before after until unless none nothing never also and or but like so
"""
FRAGMENTS = frozenset(_FRAGMENTS.split())
"""Words with which a fragment begins: no docstring of a class or module may."""

ORDER: Sequence[str] = (
    "objectives.errors", "objectives.types", "objectives.settings", "objectives.metrics",
    "objectives.knapsack", "objectives.cache", "objectives.assets", "objectives.models", "objectives.packing",
    "objectives.calibration", "objectives.protocols", "objectives.content_hash", "objectives.workloads",
    "objectives.devices", "objectives.tasks", "objectives.quantization", "objectives.pruning", "objectives.recovery",
    "objectives.runtime", "objectives.measuring", "objectives.export", "objectives.evaluation", "objectives",
    "search.errors", "search.records", "search.terminal", "search.space", "search.front", "search.frontier",
    "search.samplers", "search.executors", "search.tracking", "search.config", "search.study", "search.reporting",
    "search.commands", "search.cli", "search.__main__", "search",
    "paretune.words", "paretune.kinds", "paretune.asking", "paretune.study", "paretune.searching", "paretune",
)  # fmt: skip
"""Units of all packages, from the lowest to the highest."""


@dataclass(frozen=True)
class Function:
    """A function or method: its dotted name, its lines, how many arguments it takes, and its docstring."""

    name: str
    lines: int
    arguments: int
    docstring: str | None
    is_override: bool


class Structure:
    """The code below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {
            ".".join(path.relative_to(root).with_suffix("").parts): path
            for package in ROOTS
            for path in sorted((root / package).rglob("*.py"))
        }

    @cached_property
    def trees(self) -> Mapping[str, ast.Module]:
        """Return the syntax tree of every file, by dotted name."""
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    @cached_property
    def lines(self) -> Mapping[str, int]:
        """Return the number of lines of every file."""
        return {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in self.files.items()}

    @cached_property
    def functions(self) -> Sequence[Function]:
        """Return all functions and methods."""
        return [function for name, tree in self.trees.items() for function in _functions(name, tree)]

    @cached_property
    def imports(self) -> Mapping[str, frozenset[str]]:
        """Return which files of ours every file imports."""
        found = {name: frozenset(self._imported(name, tree)) for name, tree in self.trees.items()}
        return {name: others - {name} for name, others in found.items()}

    @cached_property
    def _run(self) -> Mapping[str, frozenset[str]]:
        """Return which files run when a file is imported: what it imports, and the ``__init__`` of other packages."""
        return {
            name: others | {init for other in others if (init := self._init_of(other)) and not _beside(name, init)}
            for name, others in self.imports.items()
        }

    def _init_of(self, name: str) -> str | None:
        """Return the ``__init__`` of a file's package; None at a root, which imports nothing by itself."""
        init = f"{name.rpartition('.')[0]}.__init__"
        return init if init in self.files and init.count(".") > 1 else None

    def _imported(self, name: str, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(name, node)
                targets = [f"{module}.{alias.name}" for alias in node.names]
            for target in targets:
                found = self._file_of(target)
                if found is not None:
                    yield found

    def _file_of(self, target: str) -> str | None:
        while target:
            for name in (target, f"{target}.__init__"):
                if name in self.files:
                    return name
            target = target.rpartition(".")[0]
        return None

    @cached_property
    def circles(self) -> list[list[str]]:
        """Return the sets of files that import each other."""
        return [sorted(each) for each in _strongly_connected(self._run) if len(each) > 1]

    def unit_of(self, name: str) -> str:
        """Return the unit of a file: its folder, two deep, or the file itself where it stands at a root."""
        parts = name.removesuffix(".__init__").split(".")
        return ".".join(parts[:2])

    @cached_property
    def arrows(self) -> frozenset[tuple[str, str]]:
        """Return which unit imports which."""
        pairs = ((self.unit_of(name), self.unit_of(other)) for name, others in self._run.items() for other in others)
        return frozenset((one, other) for one, other in pairs if one != other)

    def back_arrows(self, order: Sequence[str]) -> list[tuple[str, str]]:
        """Return the arrows that run from a unit to one that stands higher in ``order``."""
        place = {unit: index for index, unit in enumerate(order)}
        return sorted((one, other) for one, other in self.arrows if place.get(one, -1) < place.get(other, -1))

    def entries(self, package: str) -> tuple[int, int]:
        """Return how many entries a root has, and how many of them are files."""
        hidden = ("__init__.py", "__main__.py", "__pycache__", "py.typed", "_conf")
        found = [path for path in (self.root / package).iterdir() if path.name not in hidden]
        return len(found), sum(path.is_file() for path in found)

    @cached_property
    def hub(self) -> tuple[str, int]:
        """Return the file that most others import, and how many do."""
        counts: dict[str, int] = defaultdict(int)
        for others in self.imports.values():
            for other in others:
                counts[other] += 1
        return max(counts.items(), key=lambda pair: pair[1])

    @cached_property
    def references(self) -> list[str]:
        """Return the functions whose docstring only names another place."""
        return [each.name for each in self.functions if (each.docstring or "").lower().startswith("see ")]

    @cached_property
    def fragments(self) -> list[str]:
        """Return what has a docstring that does not begin as a sentence does.

        That of a function begins with a verb in the imperative; that of a class or module may describe a thing.
        """
        found = [
            each.name
            for each in self.functions
            if each.docstring is not None and not _begins_with_a_verb(each.docstring)
        ]
        for name, tree in self.trees.items():
            found += [f"{name}.{place}" for place, text in _descriptions(tree) if _first_word(text) in FRAGMENTS]
        return found


def _functions(name: str, tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = node.args
            every = (*given.posonlyargs, *given.args, *given.kwonlyargs)
            taken = [each for each in every if each.arg not in ("self", "cls") and not _is_constant(each)]
            marks = {getattr(each, "id", "") for each in node.decorator_list}
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(f"{name}.{node.name}", lines, len(taken), ast.get_docstring(node), "override" in marks)


def _is_constant(argument: ast.arg) -> bool:
    """Return whether Triton compiles a kernel for every value of ``argument``: a setting of the kernel."""
    return argument.annotation is not None and ast.unparse(argument.annotation) == "tl.constexpr"


def _absolute(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = name.split(".")[: -node.level]
    return ".".join([*base, *([node.module] if node.module else [])])


def _beside(name: str, init: str) -> bool:
    """Return whether a file lies in the package of ``init``, or below it."""
    return name.startswith(init.removesuffix("__init__"))


def _descriptions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of the module, of its classes, and of what they assign."""
    for node in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
        yield getattr(node, "name", ""), ast.get_docstring(node) or "a"
        for before, text in pairwise(node.body):
            said = getattr(getattr(text, "value", None), "value", None)
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(said, str):
                yield ast.unparse(before.target if isinstance(before, ast.AnnAssign) else before.targets[0]), said


def _begins_with_a_verb(docstring: str) -> bool:
    """Return whether the first word is an imperative, and no noun that is spelled like one (``Number of ...``)."""
    second = docstring.split()[1:2]
    return _first_word(docstring) in VERBS and second != ["of"]


def _first_word(docstring: str) -> str:
    return docstring.split()[0].strip("`*:,.;").lower() if docstring.strip() else ""


def _strongly_connected(graph: Mapping[str, frozenset[str]]) -> list[set[str]]:
    """Return the strongly connected components of ``graph`` (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []
    for root in graph:
        work = [] if root in index else [(root, iter(sorted(graph[root])))]
        if work:
            index[root] = low[root] = len(index)
            stack.append(root)
        while work:
            node, others = work[-1]
            other = next(others, None)
            if other is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    place = stack.index(node)
                    found.append(set(stack[place:]))
                    del stack[place:]
            elif other not in index:
                index[other] = low[other] = len(index)
                stack.append(other)
                work.append((other, iter(sorted(graph[other]))))
            elif other in stack:
                low[node] = min(low[node], index[other])
    return found


def spread(values: Sequence[int]) -> str:
    """Return median, 90th percentile and maximum."""
    ranked = sorted(values)
    return f"{median(ranked):.0f} / {ranked[int(0.9 * len(ranked))]} / {ranked[-1]}"


def report(found: Structure) -> list[str]:
    """Return the figures, a line each."""
    sizes = [len(each) for each in found.circles]
    most = max(found.functions, key=lambda each: each.arguments)
    longest = max(found.functions, key=lambda each: each.lines)
    largest = max(found.lines.items(), key=lambda pair: pair[1])
    return [
        f"file median / 90 % / max: {spread(list(found.lines.values()))} lines of {len(found.lines)} ({largest[0]})",
        f"function median / 90 % / max: {spread([each.lines for each in found.functions])} lines of "
        f"{len(found.functions)} ({longest.name})",
        f"most arguments: {most.arguments} ({most.name})",
        f"circles among files: {len(sizes)} {sizes}",
        f"arrows that run back up: {len(found.back_arrows(ORDER))}",
        *(f"entries at {package}: {entries}, loose files {loose}"
          for package in ROOTS for entries, loose in [found.entries(package)]),
        f"importers of the largest hub: {found.hub[1]} ({found.hub[0]})",
        f"docstrings that are only a reference: {len(found.references)}",
        f"docstrings that begin with a fragment: {len(found.fragments)}",
    ]  # fmt: skip


if __name__ == "__main__":
    print(*report(Structure(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())), sep="\n")
