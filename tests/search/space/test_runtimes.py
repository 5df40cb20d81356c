"""``runtime`` as a search variable: which cells leave the space, and that nobody proposes or waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from objectives.protocols.candidate import Candidate
from objectives.runtime import packages
from objectives.types import Measurement
from search import cli
from search.config.study_config import StudyConfig, build_config
from search.errors import ConfigError
from search.frontier.certificate import UNSUPPORTED, certify
from search.space.grid import Grid
from search.space.supported import grouped, reason_against
from search.study.study import StudyResult, run_study
from tests.conftest import VOCABULARY
from tests.search.conftest import FakeExecutor, Quiet, closed_form, composed, config_at

Make = Callable[..., StudyConfig]

NAMES = "space.runtime.name=[torch,openvino,onnxruntime]"
SMALL = ("space.pruning.ratio=[0.0,0.25]", "space.workload.batch_size=[1]", NAMES)
FEW = ("space.quantization.bits=[16,4]",)


def answer(candidate: Candidate) -> Measurement:
    """Engines are twice as fast, in half as much more memory."""
    found = closed_form(candidate)
    if candidate.runtime.is_torch:
        return found
    metrics = {**found.metrics, "throughput": 2 * found.metrics["throughput"], "speedup": 2 * found.metrics["speedup"]}
    return replace(found, metrics={**metrics, "peak_memory": 1.5 * metrics["peak_memory"]})


def study(home: Path, *overrides: str) -> StudyResult:
    return run_study(config_at(home, *SMALL, "n_trials=40", *overrides, answer=answer), Quiet())


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A study by our own sampler; tests only read it."""
    return study(tmp_path_factory.mktemp("searched"), "sampler=frontier")


def test_a_pair_that_its_runtime_refuses_leaves_the_space_with_a_reason(make_config: Make) -> None:
    config = make_config(*SMALL)
    assert len(config.space) == 18
    assert grouped(config.space.outside) == {"onnxruntime: decoders in 32, 8, 4 bits, not 16": 2}
    assert set(Grid.of(config.space).outside) == {index for index in range(18) if outside(config, index)}


def outside(config: StudyConfig, index: int) -> bool:
    cell = Grid(config.space.axes).cell(index)
    return reason_against(config.space, cell, config.model.head, config.device) is not None


@pytest.mark.parametrize("sampler", ["frontier", "tpe", "random", "exhaustive", "qmc"])
def test_no_sampler_proposes_it_and_the_study_is_complete_without_it(
    request: pytest.FixtureRequest, tmp_path: Path, sampler: str
) -> None:
    own = sampler == "frontier"
    result = request.getfixturevalue("searched") if own else study(tmp_path, f"sampler={sampler}", *FEW)
    assert result.stop_reason.value == "complete"
    assert result.config.space.outside
    assert all(tuple(record.params.values()) not in result.config.space.outside for record in result.records)
    if not own:
        cells = {tuple(record.params.values()) for record in result.records}
        assert len(cells) == len(result.config.space) - len(result.config.space.outside)


def test_the_certificate_says_which_and_why(searched: StudyResult) -> None:
    found = certify(Grid.of(searched.config.space), searched.records, searched.front)
    assert found is not None
    left = [standing for standing in found.standings if standing.status == UNSUPPORTED]
    assert {standing.why for standing in left} == {"onnxruntime: decoders in 32, 8, 4 bits, not 16"}
    assert found.counts[UNSUPPORTED] == 2
    assert found.complete


def test_the_baseline_is_torchs_whatever_is_searched(make_config: Make) -> None:
    for overrides in (SMALL, ("runtime=openvino",), (*SMALL[:2], "space.runtime.name=[onnxruntime,openvino]")):
        config = make_config(*overrides)
        assert config.space.baseline()["runtime"] == "torch"
        assert config.space.baseline_candidate().runtime.name == "torch"
    assert make_config("runtime=openvino").space.fixed()["runtime"] == "openvino"


def test_the_front_names_the_engine_that_wins(searched: StudyResult) -> None:
    members = searched.front.front
    runtimes = {record.params["runtime"] for record in searched.records if record.number in members}
    assert "torch" in runtimes
    assert len(runtimes) > 1


def test_settings_belong_to_the_runtimes_that_have_them(make_config: Make) -> None:
    config = make_config(*SMALL, "+space.runtime.activation_group=[64,128]", "runtimes.openvino.precision=f32")
    reasons = grouped(config.space.outside)
    assert reasons["torch: has no activation_group"] == 6
    cell = {**config.space.baseline(), "runtime": "openvino", "runtime.activation_group": 128}
    runtime = config.space.candidate(cell).runtime
    assert (runtime.name, runtime.activation_group, runtime.precision) == ("openvino", 128, "f32")  # type: ignore[attr-defined]


def test_what_is_configured_holds_for_the_runtime_of_that_name(make_config: Make) -> None:
    config = make_config("runtime=openvino", "runtime.precision=f32", NAMES)
    runtime = config.space.candidate({**config.space.baseline(), "runtime": "openvino"}).runtime
    assert runtime.precision == "f32"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["space.runtime.name=[torch,openvin]"], "space.runtime: unknown (did you mean openvino?); known: "),
        (["+space.runtime.threads=[1,2]"], "space.runtime.threads: no such setting"),
        (["runtime=litert"], "space: no cell can be run; litert: takes encoders, not decoders"),
        (
            ["runtime=cuda_graphs", "device=cpu"],
            "space: no cell can be run; cuda_graphs: records what a GPU runs: device=cuda",
        ),
        (
            ["runtime=openvino", "device=cuda"],
            "space: no cell can be run; openvino: runs on CPUs, device is cuda: device=cpu",
        ),
        (
            ["quantization.embeddings=8", "device=cuda"],
            "space: no cell can be run; torch: embeddings have 16 bits on cuda",
        ),
        (
            [NAMES, "runtimes.openvino.precision=f16"],
            "runtimes.openvino.precision: expected one of bf16, f32, got 'f16'",
        ),
        (["runtime=openvino", "runtime.precision=f16"], "runtime.precision: expected one of bf16, f32, got 'f16'"),
    ],
)
def test_bad_input_is_one_line(overrides: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(composed("experiment=ci_tiny", "device=cpu", *overrides))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_missing_package_stops_the_study_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(ConfigError, match=r"runtime=openvino needs openvino: pip install 'paretune\[openvino\]'"):
        build_config(composed("experiment=ci_tiny", "device=cpu", NAMES))


def test_settings_of_runtimes_count_in_the_name_of_a_study_that_searches_them(make_config: Make) -> None:
    plain, changed = (make_config(*more).name for more in ((), ("runtimes.openvino.precision=f32",)))
    assert plain == changed
    searched, other = (make_config(NAMES, *more).name for more in ((), ("runtimes.openvino.precision=f32",)))
    assert len({plain, searched, other}) == 3


def test_plan_shows_axes_cells_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "experiment=ci_tiny", "device=cpu", NAMES]) == 0
    said = capsys.readouterr().out
    assert "torch, openvino, onnxruntime" in said
    assert "48 cells" in said
    assert "6  onnxruntime: decoders in 32, 8, 4 bits, not 16" in said
    assert "Runtime openvino: openvino " in said


def test_plan_says_what_is_wrong_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "experiment=ci_tiny", "space.runtime.name=[nothing]"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_space_too_large_to_be_told_beforehand_fails_trial_by_trial(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.space.supported.MOST_CELLS", 4)
    config = make_config(*SMALL, "sampler=exhaustive", "n_trials=19", answer=answer)
    assert not config.space.outside
    result = run_study(config, Quiet())
    failed = [record for record in result.records if record.state == "failed"]
    assert {record.message for record in failed} == {"onnxruntime: decoders in 32, 8, 4 bits, not 16"}
    executor = config.executor
    assert isinstance(executor, FakeExecutor)
    assert len(executor.asked) + len(failed) == len(result.records)
    assert VOCABULARY
