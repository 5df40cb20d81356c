"""Every yaml composes and builds; every bad input ends in one line that names the key."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from objectives.types import Head
from search.commands.run import CONF
from search.config.study_config import build_config
from search.errors import ConfigError
from search.space.instantiate import build
from tests.search.conftest import composed

FUNCTION = "task.function=objectives.tasks.paired:paired_difference"
GIVEN: dict[str, str | tuple[str, ...]] = {
    "model/causal_lm": "model.path=x",
    "model/encoder": "model.path=x",
    "model/seq2seq": "model.path=x",
    "model/classifier": "model.path=x",
    "model/token_classifier": "model.path=x",
    "model/question_answering": "model.path=x",
    "task/text": "task.data=x.txt",
    "task/choice": "task.data=x.jsonl",
    "task/classification": "task.data=x.csv",
    "task/token_classification": "task.data=x.jsonl",
    "task/question_answering": "task.data=x.jsonl",
    "task/generation": "task.data=x.jsonl",
    "task/link_prediction": "task.data=x.tsv",
    "task/similarity": "task.data=x.tsv",
    "task/information_retrieval": "task.data=x.tsv",
    "task/lm_eval": "task.name=boolq",
    "task/custom": ("task.data=x.tsv", FUNCTION),
    "task/custom_rows": ("task.data=x.tsv", FUNCTION),
    "workload/serving": "runtime=llama_cpp",
    "runtime/openai_server": "workload=serving",
    "space/serving": ("workload=serving", "runtime=llama_cpp"),
    "accuracy_floor/absolute": "accuracy_floor.epsilon=0.3",
}
KINDS = {
    "classifier": "classification",
    "token_classifier": "token_classification",
    "question_answering": "question_answering",
}
"""The task of each head."""
PARTNERS = {
    **{f"model/{head}": (f"task={kind}", "task.data=x.jsonl") for head, kind in KINDS.items()},
    **{f"task/{kind}": (f"model={head}", "model.path=x") for head, kind in KINDS.items()},
    "model/minilm_languages": ("task=classification", "task.data=x.csv"),
    "model/minilm_quac": ("task=question_answering", "task.data=x.jsonl"),
    "task/dialogue_quac_spans": ("model=minilm_quac",),
}
"""What an encoder's head and its task need beside them."""
YAMLS = sorted(str(file.relative_to(CONF).with_suffix("")) for file in Path(CONF).glob("*/*.yaml"))
NEEDING = ("device", "experiment", "model", "runtime", "task", "workload")
ENCODER = ("task=retrieval", "workload=encoding", "model=minilm_l6")
ENCODED = {"encoder", "minilm_l6", "retrieval", "information_retrieval", "similarity", "encoding"}
SEQ2SEQ = (
    "workload=translation", "model=seq2seq", "model.path=x",
    "~task", "+task={_target_: tests.test_conf.Rendering}", "allow_targets=[tests.]",
)  # fmt: skip


@dataclass(frozen=True)
class Rendering:
    """Stands in for a task of encoder-decoders, of which there is none."""

    head: Head = "seq2seq"

    def calibration(self, _model: object) -> dict[str, list[object]]:
        """Nothing to calibrate with."""
        return {}

    def evaluate(self, _model: object) -> None:
        """Nothing to score."""


def config_of(*overrides: str) -> object:
    return build_config(composed(*overrides))


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(*overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def overrides_for(name: str) -> list[str]:
    """Choose the yaml, and what it needs beside it."""
    group, _, choice = name.partition("/")
    overrides = [f"{group}={choice}", *_given(name)]
    if group in {"model", "task", "workload"} and choice in ENCODED:
        overrides = [*(o for o in ENCODER if not o.startswith(group + "=")), *overrides]
    if group in {"model", "workload"} and choice in {"seq2seq", "t5_numbers", "translation"}:
        overrides = [*(o for o in SEQ2SEQ if not o.startswith(group)), *overrides]
    overrides = [*PARTNERS.get(name, ()), *overrides]
    if name == "runtime/litert":
        overrides = [*ENCODER, *overrides]
    if name == "runtime/ctranslate2":
        overrides.append("quantization.embeddings=8")
    if name == "runtime/vllm":
        overrides.append("runtime.environment=own")
    if name == "runtime/cuda_graphs":
        overrides.append("device=cuda")
    return overrides


def _given(name: str) -> tuple[str, ...]:
    given = GIVEN.get(name, ())
    return (given,) if isinstance(given, str) else given


def together() -> list[tuple[str, ...]]:
    """Every yaml once: those of groups that need nothing of others side by side, since Hydra takes 0.2 s each time."""
    groups: dict[str, list[str]] = {}
    for name in YAMLS:
        groups.setdefault(name.partition("/")[0], []).append(name)
    alone = [(name,) for group in NEEDING for name in groups.pop(group)]
    return alone + [tuple(filter(None, row)) for row in zip_longest(*groups.values())]


@pytest.mark.parametrize("names", together(), ids=" ".join)
def test_every_yaml_composes_and_builds(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_VLLM_PYTHON", sys.executable)
    monkeypatch.setattr("objectives.runtime.vllm._versions", lambda _python: (("vllm", "0"),))
    config_of(*(override for name in names for override in overrides_for(name)))


def test_all_groups_of_the_top_config_are_covered() -> None:
    assert {name.partition("/")[0] for name in YAMLS} >= {
        "model", "task", "pruning", "quantization", "workload", "space", "sampler", "executor", "tracker",
        "device", "accuracy_floor", "tradeoff", "experiment", "recovery", "runtime",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("workload.batch_size=abc", ["workload.batch_size", "an integer >= 1", "'abc'"]),
        ("workload.batch_size=0", ["workload.batch_size", "an integer >= 1", "got 0"]),
        ("space.workload.batch_size=[1,0]", ["space.workload.batch_size", "an integer >= 1", "got 0"]),
        ("space.workload.batch_size=[1,abc]", ["space.workload.batch_size", "'abc'"]),
        ("space.pruning.ratio=[0,1.0]", ["space.pruning.ratio", ">= 0 and < 1", "got 1.0"]),
        ("space.pruning.ratio=[0,0.1,0.1]", ["space.pruning.ratio", "differ"]),
        ("space.pruning.ratio=[]", ["space.pruning.ratio", "list"]),
        ("space.quantization.bits=[16,5]", ["space.quantization.bits", "16, 8, 4", "got 5"]),
        ("+space.pruning.rato=[0.1]", ["space.pruning.rato", "did you mean ratio"]),
        ("+space.prunning.ratio=[0.1]", ["space.prunning", "did you mean pruning"]),
        ("accuracy_floor.epsilon=abc", ["accuracy_floor.epsilon", "a number", "'abc'"]),
        ("accuracy_floor.epsilon=90", ["accuracy_floor.epsilon", "<= 2", "got 90"]),
        ("accuracy_floor.epsilon=null", ["accuracy_floor.epsilon", "a number", "got None"]),
        ("n_trials=0", ["n_trials", ">= 1", "got 0"]),
        ("n_trials=ten", ["n_trials", "an integer", "'ten'"]),
        ("objectives=[throughputt]", ["objectives", "did you mean throughput"]),
        ("objectives=[]", ["objectives"]),
        ("objectives=[throughput,throughput]", ["objectives", "once"]),
        ("executor.timeout=-1", ["executor.timeout", "> 0", "got -1"]),
        ("task=retrieval", ["task", "encoder", "causal_lm"]),
        ("study_name=../evil", ["study_name", "../evil"]),
        ("sampler._target_=os.system", ["sampler._target_", "objectives., search., optuna.samplers."]),
        ("sampler._target_=optuna.samplers.Nope", ["sampler._target_", "Nope"]),
        ("+sampler.speed=9", ["sampler", "speed"]),
        ("model=causal_lm", ["model.path"]),
        ("+pruning.rato=0.1", ["pruning.rato", "did you mean ratio"]),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(override: str, words: list[str]) -> None:
    text = message("experiment=ci_tiny", override)
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": {"pruning": "abc"}}, "space.pruning: expected settings"),
        ({"allow_targets": 5}, "allow_targets: expected a list"),
        ({"executor": None}, "executor: required"),
        ({"sampler": None}, "sampler: required"),
        ({"executor": {"_target_": "objectives.workloads.encoding.Encoding"}}, "is no executor"),
        ({"foo": 1}, "foo: unknown setting"),
    ],
)
def test_a_wrong_shape_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config({**composed("experiment=ci_tiny"), **change})


def test_an_absolute_floor_above_one_is_refused() -> None:
    assert "accuracy_floor" in message("accuracy_floor=absolute", "accuracy_floor.epsilon=1.5")


def test_an_empty_space_is_refused() -> None:
    assert "nothing to vary" in message("space.pruning=null", "space.quantization=null", "space.workload=null")


def test_a_nested_target_outside_the_allowed_packages_is_refused() -> None:
    node = {
        "_target_": "objectives.workloads.encoding.Encoding",
        "tokens": {"_target_": "pandas.read_pickle", "x": 1},
    }
    with pytest.raises(ConfigError, match=r"workload\.tokens\._target_"):
        build(node, "workload")


def test_a_users_module_is_admitted_by_name() -> None:
    assert build({"_target_": "fractions.Fraction", "numerator": 1}, "x", ("fractions.",)) == 1


def test_metric_names_may_use_dots_or_underscores() -> None:
    config = config_of("objectives=[latency_p95,peak_memory]")
    assert config.objectives == ("latency.p95", "peak_memory")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "overrides",
    [
        ("quantization=mixed", "space.quantization.bits=[16,5.0,4.5]"),
        ("quantization.simulate=true", "space.quantization.bits=[16,3,2]"),
        (
            "quantization=mixed",
            "quantization.simulate=true",
            "quantization.widths=[4,3]",
            "space.quantization.bits=[3.5]",
        ),
    ],
)
def test_budgets_and_simulated_widths_can_be_searched(overrides: tuple[str, ...]) -> None:
    axis = next(axis for axis in config_of(*overrides).space.axes if axis.path == "quantization.bits")
    assert axis.values == tuple(sorted(float(text) for text in overrides[-1].split("[")[1].rstrip("]").split(",")))


def test_a_width_that_is_not_stored_is_refused_not_left_out() -> None:
    said = message("space.quantization.bits=[16,3]")
    assert said.startswith("space.quantization.bits: cpu stores [4, 8, 16, 32], got 3; quantization.simulate=true")
    assert "got 5.0" in message("quantization=mixed", "quantization.widths=[4,3]", "space.quantization.bits=[5.0]")


def test_embeddings_in_8_bits_do_not_change_the_baseline() -> None:
    config = config_of("quantization.embeddings=8")
    assert config.space.baseline_candidate().quantization.embeddings == 16  # type: ignore[attr-defined]
    first = config.space.candidate({axis.path: axis.first for axis in config.space.axes})
    assert first.quantization.embeddings == 8  # type: ignore[attr-defined]
