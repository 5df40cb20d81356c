"""Every cell is proposed once, in an order of the seed, however often the study is resumed."""

from __future__ import annotations

import itertools
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from search.samplers.distinct import GRID, OUTSIDE
from search.samplers.exhaustive import ExhaustiveSampler

GRIDS = {"ratio": [0, 1, 2], "bits": [0, 1], "kind": ["a", "b"]}
CELLS = sorted(itertools.product(*GRIDS.values()))


def asked(study: optuna.Study, count: int, *, is_told: bool = True) -> list[tuple[object, ...]]:
    """Ask for ``count`` cells; trials that are not told stay in flight."""
    cells = []
    for _ in range(count):
        trial = study.ask()
        cell = (
            trial.suggest_int("ratio", 0, 2),
            trial.suggest_int("bits", 0, 1),
            trial.suggest_categorical("kind", ["a", "b"]),
        )
        cells.append(cell)
        if is_told:
            study.tell(trial, 0.0)
    return cells


def begun(file: Path, seed: int = 0) -> optuna.Study:
    study = optuna.create_study(
        study_name="all", storage=RDBStorage(f"sqlite:///{file}"), sampler=ExhaustiveSampler(seed), load_if_exists=True
    )
    study.set_user_attr(GRID, GRIDS)
    return study


def test_every_cell_once_then_again_from_the_first(tmp_path: Path) -> None:
    study = begun(tmp_path / "a.db")
    first = asked(study, len(CELLS))
    assert sorted(first) == CELLS
    assert sorted(asked(study, len(CELLS))) == CELLS


def test_cells_in_flight_are_not_proposed_again(tmp_path: Path) -> None:
    assert sorted(asked(begun(tmp_path / "a.db"), len(CELLS), is_told=False)) == CELLS


def test_a_resumed_study_goes_on_in_the_same_order(tmp_path: Path) -> None:
    whole = asked(begun(tmp_path / "a.db"), len(CELLS))
    parts = [cell for _ in range(4) for cell in asked(begun(tmp_path / "b.db"), 3)]
    assert parts == whole
    assert asked(begun(tmp_path / "c.db", seed=1), len(CELLS)) != whole


def test_cells_that_are_left_out_are_never_proposed(tmp_path: Path) -> None:
    study = begun(tmp_path / "a.db")
    study.set_user_attr(OUTSIDE, [list(CELLS[0]), list(CELLS[5])])
    assert set(asked(study, 2 * len(CELLS))) == {*CELLS} - {CELLS[0], CELLS[5]}
