"""What is known of a grid, and what that says of the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from objectives.settings import UNDECLARED
from search.frontier.forecast import GAP, Forecaster, Learned, _chosen
from search.frontier.known import Observations, WarmStart
from search.space.grid import Grid
from search.space.space import Axis

PRUNED, WIDTH = UNDECLARED["pruning"]["ratio"], UNDECLARED["quantization"]["bits"]
GRID = Grid((
    Axis("pruning.ratio", (0.0, 0.1, 0.2, 0.3, 0.4), 0.0, PRUNED),
    Axis("quantization.bits", (4, 8, 16), 16, WIDTH),
    Axis("workload.batch_size", (1, 2, 4, 8), 1),
))  # fmt: skip
RECIPES = len(GRID.recipe_lattice)


def blank(**changed) -> Observations:
    cells = len(GRID)
    parts = {
        "values": np.full((cells, 2), np.nan), "gaps": np.full(RECIPES, np.nan), "gap_errors": np.zeros(RECIPES),
        "verdicts": np.zeros(RECIPES, np.int_), "closed": np.zeros(cells, np.bool_),
        "ready": np.zeros(RECIPES, np.bool_), "memory": np.full(cells, np.nan), "starved": np.zeros(cells, np.bool_),
    }  # fmt: skip
    return Observations(GRID, **{**parts, **changed})


def index(ratio: float, bits: int, batch: int) -> int:
    found = GRID.index({"pruning.ratio": ratio, "quantization.bits": bits, "workload.batch_size": batch})
    assert found is not None
    return found


def test_where_something_did_not_fit_what_is_smaller_than_what_did_is_still_tried() -> None:
    """Two cells fitted, three larger ones did not: nothing is known of memory but that."""
    memory, starved = np.full(len(GRID), np.nan), np.zeros(len(GRID), np.bool_)
    memory[index(0.0, 16, 1)], memory[index(0.0, 16, 2)] = np.log(100), np.log(110)
    for cell in ((0.0, 16, 4), (0.1, 16, 8), (0.2, 16, 8)):
        starved[index(*cell)] = True
    known = blank(memory=memory, starved=starved, closed=starved.copy())
    fits = Forecaster().fits(known)
    assert fits[index(0.1, 16, 1)] > 0.3
    assert fits[index(0.4, 4, 1)] > 0.3
    assert fits[index(0.0, 16, 1)] > 0.7


def test_what_certainly_needs_more_than_there_is_hardly_fits() -> None:
    peaks = np.log(100 * (1 - GRID.lattice.points[:, 0] / 2) + 20 * 2 ** (3 * GRID.lattice.points[:, -1]))
    limit = np.quantile(peaks, 0.6)
    own = np.random.default_rng(0).permutation(len(GRID))[:40]
    memory, starved = np.full(len(GRID), np.nan), np.zeros(len(GRID), np.bool_)
    memory[own[peaks[own] <= limit]] = peaks[own[peaks[own] <= limit]]
    starved[own[peaks[own] > limit]] = True
    fits = Forecaster().fits(blank(memory=memory, starved=starved))
    assert fits[peaks > limit + 0.2].max() < 0.3
    assert np.median(fits[peaks < limit - 0.1]) > 0.9


def test_what_was_refused_by_prediction_says_how_much_room_there_is() -> None:
    """Of two refused cells the peaks are known, and with them what is left of all others to guess."""
    peaks = np.log(100 * (1 - GRID.lattice.points[:, 0] / 2) + 20 * 2 ** (3 * GRID.lattice.points[:, -1]))
    room = float(np.quantile(peaks, 0.6))
    own = np.random.default_rng(0).permutation(len(GRID))[:12]
    memory, starved = np.full(len(GRID), np.nan), np.zeros(len(GRID), np.bool_)
    memory[own], starved[own] = peaks[own], peaks[own] > room
    assert 2 <= starved.sum() <= 10
    forecaster = Forecaster()
    told = forecaster.fits(blank(memory=memory, starved=starved, room=room))
    guess = forecaster._plain(blank(), "memory", memory, -memory)
    sure = np.abs(guess.mean - room) > 3 * guess.deviation
    assert sure.sum() > len(GRID) / 2
    assert ((told > 0.5) == (peaks <= room))[sure].all()
    assert told[peaks > room + 0.3].max() < 0.2


def test_where_less_fits_than_was_said_what_really_ran_out_counts() -> None:
    """One was refused at a peak of 400 where 300 fit, as it was said; then one of 200 by prediction ran out."""
    memory, starved = np.full(len(GRID), np.nan), np.zeros(len(GRID), np.bool_)
    for batch, peak in ((1, 100), (2, 120), (8, 400)):
        memory[index(0.0, 16, batch)] = np.log(peak)
    starved[index(0.0, 16, 8)] = True
    told = Forecaster().fits(blank(memory=memory, starved=starved, room=float(np.log(300))))
    starved[index(0.0, 16, 4)] = True  # without a word
    now = Forecaster().fits(blank(memory=memory, starved=starved, room=float(np.log(300))))
    assert now[index(0.0, 16, 4)] < told[index(0.0, 16, 4)] - 0.2


def test_what_ran_out_of_memory_needs_at_least_what_fitted_elsewhere() -> None:
    """Nothing but small cells fitted, among which memory hardly grows: that large ones starved speaks of the others."""
    memory, starved = np.full(len(GRID), np.nan), np.zeros(len(GRID), np.bool_)
    for ratio in (0.0, 0.2, 0.4):
        memory[index(ratio, 4, 1)] = np.log(100)
        memory[index(ratio, 4, 2)] = np.log(100 - 1)  # falling, if anything
    memory[index(0.0, 16, 1)] = np.log(150)
    for ratio in (0.0, 0.1, 0.2):
        starved[index(ratio, 4, 8)] = True
    known = blank(memory=memory, starved=starved, closed=starved.copy())
    fits = Forecaster().fits(known)
    assert fits[index(0.3, 4, 8)] < fits[index(0.3, 4, 1)] - 0.2


def test_a_loss_predicted_for_all_tells_recipes_apart_and_nothing_where_one_is_missing() -> None:
    losses = np.linspace(0.0, 0.3, RECIPES)
    told = Forecaster(warm_start=WarmStart(losses=losses))._recipes(GRID)
    assert told.points.shape == (RECIPES, GRID.recipe_lattice.points.shape[1] + 1)
    assert told.points[:, -1].tolist() == sorted(told.points[:, -1])
    assert (told.points[0, -1], told.points[-1, -1]) == (0, 1)
    for useless in (np.where(np.arange(RECIPES) == 3, np.nan, losses), np.zeros(RECIPES), None):
        assert Forecaster(warm_start=WarmStart(losses=useless))._recipes(GRID) is GRID.recipe_lattice


def test_predicted_losses_sharpen_the_guess_of_what_is_feasible() -> None:
    """Accuracy follows the loss, in no order of the axes."""
    losses = np.random.default_rng(1).permutation(np.linspace(0.0, 0.2, RECIPES))
    gaps, scored = 0.05 - losses, np.arange(RECIPES) % 2 == 0
    away = []
    for warm_start in (None, WarmStart(losses=losses)):
        forecaster = Forecaster(warm_start=warm_start)
        guess = forecaster._fitted("gap", forecaster._recipes(GRID), Learned(gaps, scored, GAP), np.abs(gaps))
        away.append(np.abs(guess.mean - gaps)[~scored].mean())
    assert away[1] < 0.5 * away[0]


def test_cheaper_first() -> None:
    """A recipe that is surely feasible is timed first, one that hardly is scored first."""
    known = blank(seconds={"compress": 1.0, "score": 15.0, "run": 5.0})
    cells, ones = len(GRID), np.ones(len(GRID))
    cost, timed_first = Forecaster.cost(known, ones, 0.1 * ones)
    assert timed_first.all()
    assert cost == pytest.approx(np.full(cells, 1 + 5 + 1.5))
    cost, timed_first = Forecaster.cost(known, 0.1 * ones, 0.9 * ones)
    assert not timed_first.any()
    assert cost == pytest.approx(np.full(cells, 1 + 15 + 0.5))
    scored = blank(verdicts=np.ones(RECIPES, np.int_), seconds=known.seconds)
    assert Forecaster.cost(scored, ones, ones)[0] == pytest.approx(np.full(cells, 6.0))


def test_of_many_cells_the_nearest_and_some_of_all_others_are_learnt_from() -> None:
    own, distance = np.ones(1000, np.bool_), np.abs(np.arange(1000) - 500.0)
    own[:100] = False
    chosen = _chosen(own, distance, 40)
    assert len(set(chosen.tolist())) == 40
    assert own[chosen].all()
    assert {*range(491, 510)} <= set(chosen.tolist())
    assert chosen.min() < 250
    assert chosen.max() > 850
    assert _chosen(own, distance, 40).tolist() == chosen.tolist()
    assert _chosen(own, distance, 2000).tolist() == list(range(100, 1000))


def surfaces(cells: list[tuple[float, int, int]]) -> Observations:
    """Return what ``cells`` show of smooth surfaces; they keep the floor where little is pruned."""
    values, gaps = np.full((len(GRID), 2), np.nan), np.full(RECIPES, np.nan)
    verdicts = np.zeros(RECIPES, np.int_)
    for cell in cells:
        ratio, bits, batch = cell
        place, recipe = index(*cell), GRID.recipes[index(*cell)]
        values[place] = (
            -np.log((1 + ratio) * batch**0.5 * (16 / bits) ** 0.3),
            np.log(100 * (1 - ratio) * bits / 16 + batch),
        )
        gaps[recipe] = 0.25 - ratio
        verdicts[recipe] = 1 if gaps[recipe] > 0 else -1
    return blank(values=values, gaps=gaps, verdicts=verdicts)


MEASURED = [(0.0, 16, 1), (0.1, 16, 1), (0.0, 8, 4), (0.4, 8, 1), (0.1, 8, 2), (0.2, 16, 8)]


def pending(*cells: tuple[float, int, int]) -> np.ndarray:
    flags = np.zeros(len(GRID), np.bool_)
    flags[[index(*cell) for cell in cells]] = True
    return flags


def test_a_cell_in_flight_and_others_of_an_unknown_recipe_wait() -> None:
    known = surfaces(MEASURED)
    flying = replace(known, pending=pending((0.2, 8, 1)))
    waiting = {tuple(GRID.cell(place).values()) for place in np.flatnonzero(flying.waiting)}
    assert waiting == {(0.2, 8, batch) for batch in (1, 2, 4, 8)}
    found = Forecaster().look(flying)
    assert found.worth[flying.waiting].max() == 0
    assert found.worth.max() > 0
    scored = replace(known, pending=pending((0.1, 8, 8)))
    assert np.flatnonzero(scored.waiting).tolist() == [index(0.1, 8, 8)]


def test_what_is_in_flight_counts_where_it_is_expected_and_makes_its_neighbours_surer() -> None:
    known = surfaces(MEASURED)
    own, cell = Forecaster().look(known), index(0.2, 8, 4)
    flying = Forecaster().look(replace(known, pending=pending((0.2, 8, 4))))
    near = index(0.2, 8, 8)
    np.testing.assert_allclose(flying.mean, own.mean, atol=0.02)  # the trend is fitted to one point more
    assert flying.deviation[cell] == pytest.approx(own.deviation[cell])
    assert (flying.deviation[near] < own.deviation[near]).all()


def test_without_anything_in_flight_nothing_changes() -> None:
    known = surfaces(MEASURED)
    one, other = Forecaster().look(known), Forecaster().look(replace(known, pending=pending()))
    np.testing.assert_array_equal(one.improvement, other.improvement)
    np.testing.assert_array_equal(one.feasible, other.feasible)


def test_beside_others_a_cell_that_a_likely_one_dominates_waits() -> None:
    found = Forecaster().look(replace(surfaces(MEASURED), pending=pending((0.4, 16, 1))))
    chosen = np.flatnonzero(found.worth > 0)
    likely = found.mean[found.feasible >= 0.3]
    for cell in chosen:
        assert not (likely < found.mean[cell]).all(axis=1).any()
