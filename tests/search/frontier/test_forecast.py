"""What is known of a grid, and what that says of the rest."""

from __future__ import annotations

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
    guess = forecaster._peaks(blank(), memory)
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
