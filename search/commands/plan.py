"""``paretune plan experiment=... [settings as for run]``: print what a study would search; measures nothing.

Prints the searched settings with their values, the number of cells and of recipes, and the cells that cannot run, with
the reason, and which stock engines load the layouts that pruning may leave. A cell is one combination of all searched
values. A recipe is a cell without its workload: cells of one recipe share the compressed model and its accuracy. No
model is loaded, so this takes about a second; ``check=true`` then goes on as ``paretune check`` and loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from objectives.export.engines import Layout, loaded_by
from objectives.settings import asks_to_prune
from objectives.tasks.several import tasks_of
from search.commands.composition import config_of
from search.config.study_config import StudyConfig
from search.errors import ConfigError
from search.front.metric_limits import what_is_asked
from search.space.grid import MOST_CELLS, recipe_count
from search.space.space import Space
from search.space.supported import grouped, runtimes_of, unprunable
from search.terminal.console import console
from search.terminal.plain_text import inert

_HASH = 64
"""Characters of a SHA-256."""


def main(arguments: list[str]) -> int:
    """Compose the configuration as ``run`` would and print its plan; with ``check=true`` check the model too."""
    asked = [word for word in arguments if word.partition("=")[0] == "check"]
    if any(word not in ("check=true", "check=false") for word in asked):
        raise ConfigError(f"check: true or false, got {asked[-1].partition('=')[2]!r}")
    config = config_of([word for word in arguments if word not in asked])
    show(config, console())
    if asked[-1:] == ["check=true"]:
        from search.commands.check import look

        look(config, console())
    return 0


def show(config: StudyConfig, out: Console) -> None:
    """Print the plan of ``config``."""
    space = config.space
    table = Table(title=escape(config.name), title_justify="left")
    for name in ("Searched", "Values", "Baseline"):
        table.add_column(name, overflow="fold")
    baseline = space.baseline()
    for axis in space.axes:
        values = ", ".join(map(str, axis.values))
        table.add_row(*(Text(inert(text)) for text in (axis.path, values, str(baseline[axis.path]))))
    out.print(table)

    def say(text: str) -> None:
        out.print(inert(text), highlight=False, markup=False, soft_wrap=True)

    left = len(space) - len(space.outside)
    say(f"{left} cells, {recipe_count(space.axes)} recipes at most, {config.limits.n_trials} trials at most.")
    say(f"Objectives: {', '.join(config.objectives)}, with an accuracy of at least {_floor(config)}.")
    if config.metric_limits:
        asked = ", ".join(what_is_asked(*each) for each in config.metric_limits.limits.items())
        say(f"Limits: {asked}; a candidate beyond one is not feasible, as measured.")
    for runtime in runtimes_of(space).values():
        versions = _told(runtime.versions())
        say(f"Runtime {runtime.name}{f': {versions}' if versions else ''}.")
    for name in _layouts(space) if config.model.head == "causal_lm" else ():
        say(f"pruning.layout={name}: {loaded_by(name)}; by our own engines from our files.")
    unpruned = unprunable(config.model)
    if unpruned is not None:
        say(f"The {unpruned}.")
    if len(space) > MOST_CELLS:
        say("Too many cells to ask of each which runtime takes it: trials will say so.")
    if space.outside:
        say(f"{len(space.outside)} of {len(space)} cells are left out:")
        for reason, count in grouped(space.outside).items():
            say(f"  {count:>5}  {reason}")


def _floor(config: StudyConfig) -> str:
    """Return the accuracy floors in words."""
    floor = config.floor
    of = " of the baseline's" if floor.relative else ""
    names = [name for name in tasks_of(config.task) if name and floor.of(name)]
    above = [f"{floor.of(name):g}{of} in {name}" for name in names]
    if floor.mean is not None:
        above.append(f"{floor.mean:g}{of} in the weighted mean of all tasks")
    return ", ".join(above) or f"{floor.epsilon:g}{of}"


def _layouts(space: Space) -> list[Layout]:
    """Return the layouts that pruned decoders may have; none where nothing is pruned, or by what has no layouts."""
    candidates = [space.candidate(cell) for cell in space.cells()] if len(space) <= MOST_CELLS else []
    pruned = {getattr(each.pruning, "layout", None) for each in candidates if asks_to_prune(each.pruning)}
    return [layout for layout in Layout if layout in pruned]


def _told(versions: Mapping[str, str]) -> str:
    """Return versions for a person; files that are known by their hash are only counted."""
    hashed = sum(len(number) == _HASH for number in versions.values())
    told = [f"{name} {number}" for name, number in versions.items() if len(number) != _HASH]
    return ", ".join([*told, *([f"{hashed} files by their hashes"] if hashed else [])])
