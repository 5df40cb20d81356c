"""Old import paths answer: every name that moved is in its new place, and was in its old one in commit decccce."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from objectives.protocols.moved import MODULES, NAMES, replacement

STORED = Path(__file__).parents[1] / "stored" / "moved_names.txt"
_GONE = """
objectives.calibration.Recollected objectives.calibration.first objectives.calibration.mean
objectives.calibration.sample objectives.coherence.adds_up objectives.pruning.coherent.coherent
objectives.recipes.KEPT_BYTES objectives.recipes.Made objectives.recipes.Making objectives.recipes.Recipes
objectives.recipes.WORTH_KEEPING objectives.recipes.made_by objectives.runtime.export.Holes
objectives.runtime.export.twin objectives.runtime.folder.path_of objectives.runtime.lookup.Lookup
objectives.runtime.onnx_graph.Filling objectives.runtime.quiet.quiet objectives.runtime.runner.Cache
objectives.shelf.Shelf objectives.verdict.judge search.certificate.Standing search.certificate.told
search.confirmation.Retimed search.confirmation.own_scale search.feasible.decision_of search.feasible.judged_again
search.formatting.Scale search.formatting.price search.formatting.scale_of search.frontier.evidence.Evidence
search.frontier.grid.BOTH search.gained.Facts search.gained.typed search.page.floor_rule
search.progress.spent search.settled.Settled
"""
GONE = frozenset(_GONE.split())
"""What has no counterpart: the class or function was cut up, or does something else today."""


def before() -> Mapping[str, frozenset[str]]:
    """The public names of the modules that moved or lost names, as they were in commit decccce."""
    rows = (line.partition(": ") for line in STORED.read_text().splitlines())
    return {module: frozenset(names.split()) for module, _, names in rows}


@pytest.mark.parametrize("module", sorted({*MODULES, *NAMES}))
def test_the_table_names_only_what_was_there(module: str) -> None:
    assert NAMES.get(module, {}).keys() <= before()[module]


@pytest.mark.parametrize("module", sorted(before()))
def test_every_name_that_was_there_answers_or_is_known_to_be_gone(module: str) -> None:
    found = import_module(module)
    gone = {name for name in before()[module] if not hasattr(found, name)}
    assert {f"{module}.{name}" for name in gone} == {each for each in GONE if each.rpartition(".")[0] == module}


@pytest.mark.parametrize("module", sorted(NAMES))
def test_a_name_that_moved_is_the_very_object_of_its_new_place(module: str) -> None:
    for name, place in NAMES[module].items():
        owner, _, now = place.rpartition(".")
        assert getattr(import_module(module), name) is getattr(import_module(owner), now)


def test_a_module_below_one_that_moved_is_found_too() -> None:
    assert replacement("objectives.inspection.weights") == "objectives.models.inspection.weights"
    assert replacement("objectives.models.inspection") is None
    old, new = import_module("objectives.inspection.weights"), import_module("objectives.models.inspection.weights")
    assert old.Stored is new.Stored


def test_what_never_was_is_missing_as_ever() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'Nothing' from 'objectives\.types'"):
        exec("from objectives.types import Nothing")
    with pytest.raises(ImportError, match=r"cannot import name 'Nothing' from 'objectives\.anatomy'"):
        exec("from objectives.anatomy import Nothing")
    for name in ("objectives.nothing", "objectives.inspection.nothing", "objectives.anatomy.nothing"):
        with pytest.raises(ModuleNotFoundError, match=name):
            import_module(name)


@pytest.mark.parametrize("line", ["import objectives", "from search.floor import AccuracyFloor"])
def test_a_fresh_process_answers_and_loads_no_torch(line: str) -> None:
    code = f"{line}\nimport sys\nprint('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
