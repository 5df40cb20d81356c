from __future__ import annotations

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.types import Measurement
from search.cli import main
from search.errors import ConfigError
from search.front.comparison import Side, compare
from search.front.front import cut
from search.front.pareto import epsilon_indicator, non_dominated
from search.records.trial import TrialRecord
from search.study import store
from search.study.study import run_study
from tests.search.conftest import Quiet, closed_form, config_at

Rows = list[list[float]]
NOTHING: Rows = []


def covers(points: Rows, reference: Rows, epsilon: float) -> bool:
    """The definition: sizes of turned objectives (negative) are the better the larger."""

    def good(point: list[float], other: list[float]) -> bool:
        return all(x <= (1 + epsilon) * y if y > 0 else -x * (1 + epsilon) >= -y for x, y in zip(point, other))

    return all(any(good(point, other) for point in points) for other in reference)


@st.composite
def clouds_of_one_sign(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Two sets of points; few distinct coordinates, so that ties and duplicates abound; columns of either sign."""
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=3))
    row = st.tuples(*(st.sampled_from([1.0, 1.5, 2.0, 4.0]).map(lambda x, sign=sign: sign * x) for sign in signs))
    clouds = st.lists(row.map(list), max_size=6)
    return draw(clouds), draw(clouds)


@given(clouds_of_one_sign())
def test_the_indicator_is_the_smallest_factor_of_the_definition(clouds: tuple[Rows, Rows]) -> None:
    points, reference = clouds
    epsilon = epsilon_indicator(points, reference)
    if math.isinf(epsilon):
        assert reference
        assert not points
    else:
        assert covers(points, reference, epsilon + 1e-9)
        assert epsilon == 0 or not covers(points, reference, epsilon - 1e-9)


@given(clouds_of_one_sign())
def test_a_set_covers_itself_and_its_front_covers_it(clouds: tuple[Rows, Rows]) -> None:
    points, _ = clouds
    front = np.array(points)[non_dominated(points)] if points else NOTHING
    assert epsilon_indicator(points, points) == 0
    assert epsilon_indicator(front, points) == 0


def test_one_point_against_another() -> None:
    assert epsilon_indicator([[-100.0, 12.0]], [[-100.0, 10.0]]) == pytest.approx(0.2)
    assert epsilon_indicator([[-80.0, 10.0]], [[-100.0, 10.0]]) == pytest.approx(0.25)
    assert epsilon_indicator([[-120.0, 9.0]], [[-100.0, 10.0]]) == 0


def test_an_empty_front_is_covered_by_anything_and_covers_nothing_else() -> None:
    assert epsilon_indicator(NOTHING, NOTHING) == 0
    assert epsilon_indicator([[1.0, 2.0]], NOTHING) == 0
    assert epsilon_indicator(NOTHING, [[1.0, 2.0]]) == math.inf


@pytest.mark.parametrize("points", [[[1.0, 0.0]], [[1.0, -1.0]], [[math.nan, 1.0]], [[1.0]]])
def test_values_without_factors_are_refused(points: Rows) -> None:
    with pytest.raises(ValueError, match=r"positive throughout|finite|shape"):
        epsilon_indicator(points, [[1.0, 2.0]])


OBJECTIVES = ("throughput", "peak_memory")


def trial(number: int, params: dict[str, Any], throughput: float, memory: float, **other: Any) -> TrialRecord:
    metrics = {"throughput": throughput, "peak_memory": memory, "accuracy": 0.5}
    return replace(TrialRecord(number, f"u:{number}", params, "complete", metrics), **other)


def side(name: str, *records: TrialRecord, objectives: tuple[str, ...] = OBJECTIVES, **given: Any) -> Side:
    return Side(name, records, cut(records, objectives, 0.0, lambda *_: 1.0), **given)


def bits(number: int, width: int, throughput: float, memory: float, **other: Any) -> TrialRecord:
    return trial(number, {"quantization.bits": width}, throughput, memory, **other)


A = side("a", bits(0, 16, 100, 16), bits(1, 8, 200, 8), bits(2, 4, 300, 20))


def test_cells_are_matched_by_their_variables_and_not_by_number() -> None:
    found = compare(A, side("b", bits(7, 4, 330, 20), bits(3, 16, 50, 8), bits(4, 2, 1, 1)))
    assert found.cells.common == ({"quantization.bits": 16}, {"quantization.bits": 4})
    assert found.cells.measured == (3, 3)
    assert found.cells.ratios["throughput"].cells == pytest.approx((0.5, 1.1))
    assert found.cells.ratios["peak_memory"].cells == pytest.approx((0.5, 1.0))


def test_the_worst_ratio_is_the_lowest_speed_and_the_highest_memory() -> None:
    ratios = compare(A, side("b", bits(0, 16, 50, 8), bits(1, 8, 220, 8), bits(2, 4, 600, 60))).cells.ratios
    assert (ratios["throughput"].median, ratios["throughput"].worst) == pytest.approx((1.1, 0.5))
    assert (ratios["peak_memory"].median, ratios["peak_memory"].worst) == pytest.approx((1.0, 3.0))


def test_what_one_study_fixed_meets_what_the_other_searched() -> None:
    wide = side("b", *(trial(n, {"quantization.bits": 8, "workload.batch_size": n}, n, 1) for n in (1, 4)))
    found = compare(replace(A, fixed={"workload.batch_size": 4, "pruning.ratio": 0.5}), wide)
    assert found.cells.common == ({"quantization.bits": 8, "workload.batch_size": 4},)
    assert found.cells.ratios["throughput"].cells == pytest.approx((4 / 200,))
    assert compare(A, wide).cells.common == ()


def test_only_what_was_measured_is_compared_and_the_first_of_a_cell() -> None:
    other = side(
        "b",
        replace(bits(0, 16, 100, 16), state="failed", metrics={}),
        bits(1, 8, 400, 8),
        bits(2, 8, 800, 8, cached_from=1),
        bits(3, 8, 600, 8),
        replace(bits(4, 4, 1, 1), metrics={"accuracy": 0.5}),
    )
    found = compare(A, other)
    assert found.cells.common == ({"quantization.bits": 8},)
    assert found.cells.measured == (3, 1)
    assert found.cells.ratios["throughput"].cells == (2.0,)


def naive_tau(first: list[float], second: list[float]) -> float:
    """Kendall's tau-b by its definition."""
    pairs = list(itertools.combinations(range(len(first)), 2))
    x = [np.sign(first[i] - first[j]) for i, j in pairs]
    y = [np.sign(second[i] - second[j]) for i, j in pairs]
    return float(np.dot(x, y) / math.sqrt(np.dot(x, x) * np.dot(y, y)))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=8))
def test_the_order_is_kendalls_tau_b_of_the_first_objective(values: list[tuple[int, int]]) -> None:
    first = side("a", *(bits(n, n, x, 1) for n, (x, _) in enumerate(values)))
    second = side("b", *(bits(n, n, y, 1) for n, (_, y) in enumerate(values)))
    order = compare(first, second).cells.order
    if min(len(set(column)) for column in zip(*values)) < 2:
        assert order is None
    else:
        assert order == pytest.approx(naive_tau(*([float(v) for v in column] for column in zip(*values))))


def test_the_objectives_of_the_first_study_say_in_which_order() -> None:
    turned = side("b", *A.records, objectives=OBJECTIVES[::-1])
    assert compare(A, turned).objectives == OBJECTIVES
    assert compare(turned, A).objectives == OBJECTIVES[::-1]
    assert compare(A, turned).fronts.coverage == (0, 0)


def test_members_of_one_front_alone_are_named_by_cell() -> None:
    other = side("b", bits(0, 8, 200, 8), bits(1, 4, 150, 20), bits(2, 16, 250, 9))
    fronts = compare(A, other).fronts
    assert fronts.sizes == (2, 2)
    assert fronts.only == (({"quantization.bits": 4},), ({"quantization.bits": 16},))


def test_coverage_says_what_each_front_lacks_of_the_other() -> None:
    first = side("a", bits(0, 16, 100, 10), bits(1, 8, 200, 20))
    second = side("b", bits(0, 16, 100, 12), bits(1, 8, 220, 20))
    assert compare(first, second).fronts.coverage == pytest.approx((0.2, 0.1))
    assert compare(second, first).fronts.coverage == pytest.approx((0.1, 0.2))


def test_gains_over_each_baseline_leave_out_that_one_machine_was_faster() -> None:
    def study(name: str, pace: float, gain: float) -> Side:
        start = replace(bits(0, 16, 100 * pace, 10), is_baseline=True)
        return side(name, start, bits(1, 8, 200 * pace * gain, 10))

    fronts = compare(study("a", 1.0, 1.0), study("b", 1.25, 1.0)).fronts
    assert fronts.coverage == pytest.approx((0, 0.25))
    assert fronts.gains == pytest.approx((0, 0))
    fronts = compare(study("a", 1.0, 1.0), study("b", 1.25, 0.8)).fronts
    assert fronts.coverage == pytest.approx((0, 0))
    assert fronts.gains == pytest.approx((0.25, 0))
    assert compare(A, A).fronts.gains is None  # no baseline


def test_a_study_without_a_front_covers_nothing() -> None:
    empty = Side("b", A.records, cut(A.records, OBJECTIVES, 0.9, lambda *_: 1.0))
    assert compare(A, empty).fronts.coverage == (math.inf, 0)
    assert compare(empty, A).fronts.coverage == (0, math.inf)
    assert compare(empty, empty).fronts.coverage == (0, 0)


def test_without_a_common_cell_there_are_no_ratios_and_the_fronts_are_compared() -> None:
    found = compare(A, side("b", bits(0, 2, 400, 4)))
    assert (found.cells.common, found.cells.ratios, found.cells.order) == ((), {}, None)
    assert found.fronts.coverage == (0, 1.0)


def test_other_objectives_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^objectives: .* throughput, peak_memory against throughput"):
        compare(A, side("b", *A.records, objectives=("throughput",)))


def test_an_objective_of_zero_has_no_ratio_and_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^objectives: peak_memory must be above 0 .* got 0 in trial 5 of b"):
        compare(A, side("b", bits(5, 16, 100, 0)))


def test_machines_that_differ_are_named() -> None:
    there = side("b", *A.records, machine={"cores": "8", "torch": "2.11"})
    assert compare(replace(A, machine={"cores": "4"}), there).hardware == {"cores": ("4", "8")}


# The command, over stored studies.

MACHINE = {"device": "cpu", "device_name": "Chip [1]", "cores": "4", "model_sha256": "0123456789abcdef"}


def faster(candidate: Any) -> Measurement:
    metrics = dict(closed_form(candidate).metrics)
    metrics["speedup"] *= 1.0 if metrics["speedup"] == 1 else 1.25
    return Measurement(metrics)


def store_study(home: Path, name: str, *overrides: str, machine: dict[str, str] | None = None, **answer: Any) -> None:
    """Run a study called ``name`` as if on a machine."""
    config = config_at(home, f"study_name={name}", "sampler=exhaustive", "n_trials=4", *overrides, **answer)
    run_study(config, Quiet())
    study = optuna.load_study(study_name=name, storage=config.storage)
    study.set_user_attr(store.MACHINE, {**MACHINE, **(machine or {})})


@pytest.fixture(scope="module")
def home_of_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a study called "a"; copied, since others are stored beside it."""
    home = tmp_path_factory.mktemp("a") / "mlruns"
    store_study(home, "a")
    return home


@pytest.fixture
def stored(home_of_a: Path, tmp_path: Path):
    """Runs a study beside "a", or in another home."""
    shutil.copytree(home_of_a, tmp_path / "mlruns")

    def run(name: str, *overrides: str, home: str = "mlruns", **more: Any) -> None:
        store_study(tmp_path / home, name, *overrides, **more)

    return run


@pytest.fixture
def call(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Exit code, output and error of ``paretune compare study=a with=b``."""
    monkeypatch.setenv("COLUMNS", "140")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["compare", "study=a", f"home={tmp_path}/mlruns", *words])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    return line.removeprefix("paretune: ")


def test_two_stored_studies_are_compared_in_a_table(stored, call) -> None:
    stored("b", answer=faster)
    code, out, err = call("with=b")
    assert (code, err) == (0, "")
    lines = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in out.splitlines() if "│" in line}
    assert lines["Cells in both"] == "4 (A has 4, B 4)"
    assert lines["Throughput, B/A"] == "1.25× median, 1.00× worst"
    assert lines["Peak memory, B/A"] == "1.00× median, 1.00× worst"
    assert lines["B covers A's front within"] == "0 %"
    assert lines["A covers B's front within"] == "25 %"
    assert lines["Both, by gains over each baseline"] == "0 % and 25 %"
    assert "Other settings in B" not in lines
    assert "unlike hardware" not in out


def test_json_is_strict_and_says_null_where_a_front_is_empty(stored, call, tmp_path: Path) -> None:
    stored("b", "accuracy_floor.epsilon=1.5", home="other")
    code, out, err = call("with=b", f"with_home={tmp_path}/other", "json=true")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (code, err) == (0, "")
    assert found["studies"] == ["a", "b"]
    assert found["settings"] == ["accuracy_floor"]
    assert found["fronts"]["coverage"] == [None, 0.0]
    assert found["cells"]["order"] == pytest.approx(1.0)
    assert len(found["cells"]["ratios"]["peak_memory"]["cells"]) == len(found["cells"]["common"]) == 4


def test_a_study_without_recovery_meets_the_cells_that_recover_for_no_time(stored, call) -> None:
    stored("b", "recovery=distillation", "+space.recovery.seconds=[0,60]")
    found = json.loads(call("with=b", "json=true")[1])
    assert {cell["recovery.seconds"] for cell in found["cells"]["common"]} == {0}
    assert found["settings"] == ["recovery", "space"]


def test_a_floor_given_with_the_command_is_that_of_both(stored, call) -> None:
    stored("b", "accuracy_floor.epsilon=0.5")
    assert json.loads(call("with=b", "json=true")[1])["settings"] == ["accuracy_floor"]
    code, out, _ = call("with=b", "accuracy_floor.epsilon=0.95", "json=true")
    found = json.loads(out)
    assert code == 0
    assert found["settings"] == []
    assert found["fronts"]["coverage"] == [0.0, 0.0]


def test_unlike_hardware_is_refused_until_asked_for_and_then_said(stored, call) -> None:
    stored("b", machine={"device_name": "Other [2]", "kernel": "6"})
    told = refusal(call("with=b"))
    assert told.startswith("across_hardware: ")
    assert "(device_name Chip [1] against Other [2]); across_hardware=true compares all the same" in told
    code, out, _ = call("with=b", "across_hardware=true")
    assert code == 0
    assert "across unlike hardware (device_name Chip [1] against Other [2])" in " ".join(out.split())


def test_other_weights_and_tasks_are_refused_always(stored, call) -> None:
    stored("b", machine={"model_sha256": "fedcba9876543210"})
    stored("c", "task.documents=7")
    for words in ((), ("across_hardware=true",)):
        told = refusal(call("with=b", *words))
        assert told.startswith("model.path: only studies of the same weights compare")
        assert "(0123456789ab) against" in told
        assert refusal(call("with=c", *words)).startswith(
            "task: only studies of the same task compare, got task.documents 8 against 7"
        )


def test_other_objectives_are_refused_unless_both_are_told_the_same(stored, call) -> None:
    stored("b", "objectives=[latency.p50,peak_memory]")
    assert refusal(call("with=b")).startswith("objectives: must be the same in both studies")
    assert call("with=b", "objectives=[latency.p50]")[0] == 0


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ((), "with: the name of the study to compare with, got none"),
        (("with=nope",), "with: study: no study named 'nope'"),
        (("with=a", "with_home=/no/where"), "with: storage: no studies at /no/where/studies.db"),
        (("with=a", "json=yes"), "json: true or false, got 'yes'"),
        (("with=a", "across_hardware=1"), "across_hardware: true or false, got '1'"),
        (("with=a", "n_trials=3"), "n_trials: cannot be changed after the trials"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_bad_input_ends_in_one_line(call, words: tuple[str, ...], start: str) -> None:
    assert refusal(call(*words)).startswith(start)
