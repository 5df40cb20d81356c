"""A pruner of a user's own, whose strength is called ``sparsity``: baseline, front and comparison know it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import optuna
import pytest

from objectives.protocols.candidate import Candidate, Pruner
from objectives.settings import Strength
from objectives.types import Measurement
from search.cli import main
from search.config.study_config import StudyConfig, build_config
from search.errors import ConfigError
from search.front.front import baseline_of
from search.frontier.certificate import ASSUMED, certify
from search.frontier.forecast import harder_than
from search.space.grid import Grid
from search.study import store
from search.study.preflight import preflighted
from search.study.study import StudyResult, run_study
from tests.search.conftest import Quiet, closed_form, composed

SPARSITIES = "[0.5,0.2,0.0]"


@dataclass(frozen=True)
class Unsaid:
    """Nothing says that it is ``sparsity`` which prunes."""

    sparsity: float = 0.0

    def prune_(self, model: Any, statistics: Any) -> None: ...
    def resize_fake_(self, model: Any, statistics: Any) -> None: ...
    def predict(self, statistics: Any) -> float:
        return 0.0


@dataclass(frozen=True)
class Sparse(Unsaid):
    sparsity: Annotated[float, Strength(neutral=0.0, harder=+1)] = 0.3


@dataclass(frozen=True)
class Keeping(Unsaid):
    """The other way round: what stays."""

    kept: Annotated[float, Strength(neutral=1.0, harder=-1)] = 0.5


@dataclass(frozen=True)
class Named(Unsaid):
    """Nothing is declared, but the name is one that always meant it."""

    ratio: float = 0.3


@dataclass(frozen=True)
class Telling(Unsaid):
    """Nothing is declared, but it can be asked."""

    @property
    def ratio(self) -> float:
        return self.sparsity


class Plain:
    """No dataclass: its settings are those of its constructor."""

    def __init__(self, ratio: float = 0.3) -> None:
        self.ratio = ratio

    prune_ = Unsaid.prune_
    resize_fake_ = Unsaid.resize_fake_
    predict = Unsaid.predict

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.ratio)


class Bare(Pruner):
    """Has a protocol as its base and no settings; a protocol's constructor would take any."""

    ratio = 0.0
    prune_ = Unsaid.prune_  # type: ignore[assignment]
    resize_fake_ = Unsaid.resize_fake_  # type: ignore[assignment]
    predict = Unsaid.predict

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bare)

    def __hash__(self) -> int:
        return 0


def made(sparsity: float = 0.2) -> Sparse:
    """A function that builds one, whatever it is given."""
    return Sparse(max(0.1, sparsity))


@dataclass(frozen=True)
class Narrow:
    """A quantiser whose width has a name of its own, and that does not say so."""

    width: int = 4
    scheme = "weight_only"
    embeddings = 16
    predicts = False

    @property
    def bits(self) -> float:
        return self.width

    @property
    def stored(self) -> frozenset[int]:
        return frozenset({self.width})

    def quantize_(self, model: Any, statistics: Any, device: Any) -> None: ...
    def resize_fake_(self, model: Any, statistics: Any, device: Any) -> None: ...
    def predict(self, statistics: Any) -> float:
        return 0.0


@dataclass(frozen=True)
class Wide(Narrow):
    width: Annotated[int, Strength(neutral=16, harder=-1, uneven=True)] = 4


def own(target: str, searched: str = "null", *more: str, **fixed: Any) -> dict[str, Any]:
    """The settings of a study whose pruner is one of those above."""
    resolved = composed(
        "experiment=ci_tiny", "device=cpu", "tracker=none", "allow_targets=[tests.]",
        "space.pruning=null", *([] if searched == "null" else [f"+space.pruning.sparsity={searched}"]), *more,
    )  # fmt: skip
    resolved["pruning"] = {"_target_": f"{__name__}.{target}", **fixed}
    return resolved


@pytest.mark.parametrize("fixed", [{}, {"sparsity": 0.3}])
def test_the_baseline_is_unpruned_however_the_strength_is_called_and_set(fixed: dict[str, float]) -> None:
    space = build_config(own("Sparse", **fixed)).space
    assert space.baseline()["pruning.sparsity"] == 0.0
    assert space.baseline_candidate().pruning == Sparse(0.0)
    assert space.fixed()["pruning.sparsity"] == 0.3
    assert space.baseline() not in space


def test_the_baseline_is_unpruned_where_the_strength_is_searched() -> None:
    space = build_config(own("Sparse", SPARSITIES)).space
    assert space.baseline()["pruning.sparsity"] == 0.0
    assert space.baseline() in space
    space = build_config(own("Sparse", "[0.5,0.2]")).space
    assert space.baseline_candidate().pruning == Sparse(0.0)


def test_a_strength_may_count_down_to_harder() -> None:
    space = build_config(own("Keeping", "null", "+space.pruning.kept=[0.5,0.8,1.0]")).space
    assert space.baseline()["pruning.kept"] == 1.0
    grid = Grid(tuple(axis for axis in space.axes if axis.path == "pruning.kept"))
    assert [harder.tolist() for harder in harder_than(grid)] == [[], [0], [0, 1]]


def test_a_width_may_have_another_name() -> None:
    resolved = composed("experiment=ci_tiny", "device=cpu", "allow_targets=[tests.]", "space.quantization.bits=null")
    resolved["quantization"] = {"_target_": f"{__name__}.Wide"}
    resolved["space"]["quantization"] = {"width": [4, 8, 16]}
    config = preflighted(build_config(resolved))
    assert config.space.baseline()["quantization.width"] == 16
    resolved["space"]["quantization"] = {"width": [3, 16]}
    with pytest.raises(ConfigError, match=r"^space.quantization.width: cpu stores .*, got 3"):
        build_config(resolved)


def test_a_setting_of_a_plain_constructor_can_be_searched() -> None:
    config = preflighted(build_config(own("Plain", "null", "+space.pruning.ratio=[0.0,0.2]")))
    assert [axis.path for axis in config.space.axes if axis.path.startswith("pruning")] == ["pruning.ratio"]
    assert config.space.baseline_candidate().pruning == Plain(0.0)
    with pytest.raises(
        ConfigError, match=r"^space.pruning.ratoi: no such setting .*; pruning has: ratio; .*leaves it out$"
    ):
        build_config(own("Plain", "null", "+space.pruning.ratoi=[0.0,0.2]"))


def test_a_class_without_settings_says_that_it_has_none() -> None:
    with pytest.raises(ConfigError, match=r"^space.pruning.ratio: no such setting; pruning has none; .*leaves it out$"):
        build_config(own("Bare", "null", "+space.pruning.ratio=[0.0,0.2]"))


@pytest.mark.parametrize(
    ("target", "searched", "fixed"),
    [
        ("Unsaid", SPARSITIES, {}),
        ("Unsaid", "null", {"sparsity": 0.0}),  # right by chance, and nobody can know
        ("Telling", SPARSITIES, {}),
        ("made", "null", {"sparsity": 0.3}),
    ],
)
def test_a_pruner_that_may_prune_the_baseline_is_refused_with_what_to_declare(
    target: str, searched: str, fixed: dict[str, float]
) -> None:
    config = build_config(own(target, searched, **fixed))
    with pytest.raises(ConfigError) as caught:
        preflighted(config)
    said = str(caught.value)
    assert said.startswith(f"pruning: the baseline must be unpruned, but no setting of {__name__}.{target} says")
    assert ": Annotated[float, Strength(neutral=0.0, harder=1)] (objectives/settings.py)" in said
    assert "\n" not in said


@dataclass(frozen=True)
class Several(Unsaid):
    """Has texts, switches and numbers, and declares none."""

    sparsity: float = field(default=0.0, init=False)
    order: str = "lowest"
    aligned: bool = True
    amount: float = 0.5
    steps: int = 4


@dataclass(frozen=True)
class Needed(Unsaid):
    """Has a number without a default, before one that has it."""

    sparsity: float = field(default=0.0, init=False)
    order: str = field(kw_only=True)
    amount: float = field(kw_only=True)


@pytest.mark.parametrize(
    ("target", "searched", "fixed", "named"),
    [
        ("Several", "null", {}, "amount"),
        ("Several", "null", {"order": "highest"}, "amount"),
        ("Several", "+space.pruning.steps=[2,4]", {}, "steps"),
        ("Several", "+space.pruning.order=[lowest,highest]", {}, "amount"),
        ("Needed", "null", {"order": "highest", "amount": 0.1}, "amount"),
        ("Nameless", "null", {}, "name"),
    ],
)
def test_the_refusal_names_the_setting_that_is_searched_or_else_the_first_number(
    target: str, searched: str, fixed: dict[str, Any], named: str
) -> None:
    more = () if searched == "null" else (searched,)
    config = build_config(own(target, "null", *more, **fixed))
    with pytest.raises(ConfigError, match=rf"declare which, as {named}: Annotated\[float, Strength"):
        preflighted(config)


@dataclass(frozen=True)
class Nameless(Unsaid):
    """Has no setting at all."""

    sparsity: float = field(default=0.0, init=False)


@pytest.mark.parametrize(
    ("target", "searched", "fixed"),
    [
        ("Sparse", SPARSITIES, {}),
        ("Named", "null", {}),
        ("Named", "null", {"ratio": 0.3}),
        ("Telling", "[0.0,0.2]", {}),
        ("Telling", "null", {"sparsity": 0.0}),
    ],
)
def test_one_whose_baseline_is_unpruned_is_taken(target: str, searched: str, fixed: dict[str, float]) -> None:
    preflighted(build_config(own(target, searched, **fixed)))


def test_a_quantiser_that_would_round_the_baseline_is_refused() -> None:
    resolved = composed("experiment=ci_tiny", "device=cpu", "allow_targets=[tests.]", "space.quantization.bits=null")
    resolved["quantization"] = {"_target_": f"{__name__}.Narrow", "width": 8}
    config = build_config(resolved)
    with pytest.raises(
        ConfigError, match=r"^quantization: the baseline must be in 16 bits, .* as width: Annotated\[int"
    ):
        preflighted(config)
    resolved["quantization"]["width"] = 16
    preflighted(build_config(resolved))


def sparse_form(candidate: Candidate) -> Measurement:
    """The closed form, of the sparsity; sharply worse beyond 0.2."""
    pruning: Any = candidate.pruning
    return closed_form(replace(candidate, pruning=_Ratio(pruning.sparsity)))


@dataclass(frozen=True)
class _Ratio:
    ratio: float


@pytest.fixture
def study(tmp_path: Path, make_config: Any) -> Any:
    """Runs a study of ``Sparse`` over the closed form."""

    def run(name: str, searched: str, *more: str, **fixed: Any) -> StudyResult:
        executor = make_config(answer=sparse_form).executor
        resolved = own("Sparse", searched, f"study_name={name}", f"home={tmp_path}/mlruns", "n_trials=100", *more)
        resolved["pruning"] |= fixed
        config: StudyConfig = replace(build_config(resolved), executor=executor)
        result = run_study(config, Quiet())
        stored = optuna.load_study(study_name=name, storage=config.storage)
        stored.set_user_attr(store.MACHINE, {"device": "cpu", "model_sha256": "0123456789abcdef"})
        return result

    return run


def test_the_front_assumes_that_what_is_sparser_misses_the_floor_too(study: Any) -> None:
    result = study("own", "[0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7]", "sampler=frontier")
    baseline = baseline_of(result.records)
    assert baseline is not None
    assert baseline.params["pruning.sparsity"] == 0.0
    found = certify(Grid.of(result.config.space), result.records, result.front)
    assert found is not None
    assert found.complete
    by_number = {record.number: record for record in result.records}
    assumed = [each for each in found.standings if each.status == ASSUMED and each.trial is not None]
    assert assumed
    for each in assumed:
        assert each.cell["pruning.sparsity"] >= by_number[each.trial].params["pruning.sparsity"]


def test_studies_that_search_a_strength_and_fix_it_are_compared(
    study: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = ("sampler=exhaustive", "space.quantization.bits=[16,4]")
    study("a", "[0.0,0.3]", *few)
    study("b", "null", *few)  # its class has 0.3
    assert main(["compare", "study=a", "with=b", f"home={tmp_path}/mlruns", "json=true"]) == 0
    common = json.loads(capfd.readouterr().out)["cells"]["common"]
    assert {cell["pruning.sparsity"] for cell in common} == {0.0, 0.3}
