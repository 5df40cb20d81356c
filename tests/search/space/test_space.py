from __future__ import annotations

import optuna
import pytest

from search.config.study_config import build_config
from tests.search.conftest import composed


@pytest.fixture
def space():
    return build_config(composed("experiment=quickstart", "device=cpu")).space


def test_the_quickstart_space_has_its_cells_once(space) -> None:
    cells = [tuple(cell.values()) for cell in space.cells()]
    assert len(cells) == len(set(cells)) == len(space) == 36


def test_the_baseline_is_unpruned_16_bit_first_batch(space) -> None:
    assert space.baseline() == {"pruning.ratio": 0.0, "quantization.bits": 16, "workload.batch_size": 1}
    candidate = space.baseline_candidate()
    assert (candidate.pruning.ratio, candidate.quantization.bits, candidate.workload.batch_size) == (
        0.0,
        16,
        1,
    )


def test_the_baseline_stays_neutral_when_the_space_leaves_it_out() -> None:
    config = build_config(
        composed(
            "experiment=ci_tiny", "device=cpu", "space.quantization.bits=[8,4]", "space.pruning=null",
            "pruning.ratio=0.25", "space.workload.batch_size=[4,1]",
        )
    )  # fmt: skip
    candidate = config.space.baseline_candidate()
    assert (candidate.pruning.ratio, candidate.quantization.bits, candidate.workload.batch_size) == (
        0.0,
        16,
        4,
    )
    assert config.space.baseline() not in config.space


def test_any_field_of_the_candidate_can_be_searched() -> None:
    space = build_config(
        composed("experiment=ci_tiny", "device=cpu", "+space.pruning.reconstruction=[least_squares,none]")
    ).space
    assert len(space) == 36
    assert {space.candidate(cell).pruning.reconstruction for cell in space.cells()} == {"least_squares", "none"}


def test_a_sampled_cell_lies_on_the_grid_and_maps_back(space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        cell = space.suggest(trial)
        assert cell in space
        assert space.sampled(cell) == trial.params
