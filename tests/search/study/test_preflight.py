"""A study that cannot be right is refused in one line before torch is imported, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objectives.devices.driver import gpus
from objectives.types import Failure, Measurement, Reason
from search.config.study_config import StudyConfig
from search.errors import BaselineFailed, ConfigError, Unmeasured
from search.study import opening
from search.study.opening import cells_outside
from search.study.preflight import preflighted, with_stored_outside
from search.study.study import run_study
from search.study.telling import admitted, require_timed
from tests.objectives.models.test_inspection import Write, write, written
from tests.search.conftest import Answer, Quiet, closed_form
from tests.search.fresh_process import Answer as Result
from tests.search.fresh_process import answers_of

__all__ = ["write"]
MakeConfig = Callable[..., StudyConfig]
LONG = "+space.workload.prompt_tokens=[16,250,300]"
TEXTS = ("task.documents=4", "task.tokens=32", "task.calibration_documents=2", "workload.new_tokens=4")


def config_of(make: MakeConfig, folder: Path, *more: str, kind: str = "causal_lm") -> StudyConfig:
    return make(f"model={kind}", f"model.path={folder}", *TEXTS, *more)


def refused(config: StudyConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        preflighted(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- lengths


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((LONG,), "space.workload.prompt_tokens: 300 + 4 tokens, the model has 256 positions"),
        (("workload.prompt_tokens=300",), "workload.prompt_tokens: 300 + 4 tokens, the model has 256 positions"),
        (("workload.new_tokens=300", "workload.prompt_tokens=16"),
         "workload.new_tokens: 16 + 300 tokens, the model has 256 positions"),
        (("+space.workload.new_tokens=[4,300]", "workload.prompt_tokens=16"),
         "space.workload.new_tokens: 16 + 300 tokens, the model has 256 positions"),
        (("task.tokens=257",), "task.tokens: 257 tokens, the model has 256 positions"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "opt"])
def test_what_is_longer_than_the_model_is_refused_by_its_setting(
    make_config: MakeConfig, write: Write, model_type: str, more: tuple[str, ...], message: str
) -> None:
    folder = write(model_type, max_position_embeddings=256, n_positions=256)
    assert refused(config_of(make_config, folder, *more)) == message


@pytest.mark.parametrize("task", ["classification", "token_classification"])
def test_labels_that_the_config_does_not_name_are_refused_before_loading(
    make_config: MakeConfig, write: Write, tmp_path: Path, task: str
) -> None:
    head, key = {"classification": ("classifier", "label"), "token_classification": ("token_classifier", "tags")}[task]
    file = tmp_path / "rows.jsonl"
    labels = [{"label": name, "tags": [name]}[key] for name in ("good", "poor")]
    rows = [{"text": f"film {n}", "words": [f"film{n}"], key: labels[n % 2]} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = write("bert", id2label={"0": "bad", "1": "fair"}, num_labels=2)
    config = make_config(
        f"model={head}", f"model.path={folder}", f"task={task}", f"task.data={file}", "experiment=minilm_retrieval"
    )
    assert re.match(rf"task\.{key}: 5 of 5 rows are wrong: .* the model knows bad, fair", refused(config))
    named = make_config(
        f"model={head}",
        f"model.path={folder}",
        f"task={task}",
        f"task.data={file}",
        "experiment=minilm_retrieval",
        "task.labels=[good,poor]",
    )
    preflighted(named)
    several = write("roberta", id2label={"0": "good", "1": "poor"}, problem_type="multi_label_classification")
    config = make_config(
        f"model={head}", f"model.path={several}", f"task={task}", f"task.data={file}", "experiment=minilm_retrieval"
    )
    assert re.search("any number of classes for a text; tasks with labels score one class", refused(config))
    nameless = write("electra")
    config = make_config(
        f"model={head}", f"model.path={nameless}", f"task={task}", f"task.data={file}", "experiment=minilm_retrieval"
    )
    assert re.search("the model knows LABEL_0, LABEL_1: task.labels", refused(config))


@pytest.mark.parametrize(("key", "tokens"), [("workload.tokens", 257), ("task.tokens", 513)])
@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_so_it_is_for_encoders(make_config: MakeConfig, write: Write, model_type: str, key: str, tokens: int) -> None:
    limit = 256
    folder = write(model_type, max_position_embeddings=limit + (2 if model_type == "roberta" else 0), pad_token_id=1)
    config = make_config("experiment=minilm_retrieval", "model=encoder", f"model.path={folder}", f"{key}={tokens}")
    assert refused(config) == f"{key}: {tokens} tokens, the model has {limit} positions"


def test_a_model_without_positions_has_no_limit(make_config: MakeConfig, write: Write) -> None:
    assert not preflighted(config_of(make_config, write("bloom"), LONG)).space.outside


def test_single_cells_that_are_too_long_leave_the_space(make_config: MakeConfig, write: Write) -> None:
    axes = ("+space.workload.prompt_tokens=[16,250]", "+space.workload.new_tokens=[4,16]")
    space = preflighted(config_of(make_config, write("gpt2", n_positions=256), *axes)).space
    names = [axis.path for axis in space.axes]
    left_out = [dict(zip(names, values)) for values in space.outside]
    assert left_out
    assert len(left_out) == len(space) // 4
    assert {(cell["workload.prompt_tokens"], cell["workload.new_tokens"]) for cell in left_out} == {(250, 16)}
    assert set(space.outside.values()) == {"space.workload.prompt_tokens: 250 + 16 tokens, the model has 256 positions"}


def test_what_was_left_out_stays_so_without_the_model(make_config: MakeConfig, write: Write) -> None:
    axes = ("+space.workload.prompt_tokens=[16,250]", "+space.workload.new_tokens=[4,16]")
    folder = write("gpt2", n_positions=256)
    plain = config_of(make_config, folder, *axes)
    checked = preflighted(plain)

    study = opening.open_study(checked, checked.sampler)
    again = with_stored_outside(plain.space, cells_outside(study, plain.space))
    assert set(again.outside) == set(checked.space.outside) != set()


# ---- memory


@pytest.mark.parametrize("setting", ["workload.batch_size=1000000000", "space.workload.batch_size=[1000000000]"])
def test_a_batch_that_no_machine_holds_is_refused(make_config: MakeConfig, write: Write, setting: str) -> None:
    other = () if setting.startswith("space") else ("space.workload.batch_size=null",)
    message = refused(config_of(make_config, write("gpt2"), setting, *other))
    assert "workload.batch_size: 1000000000 requests take" in message
    assert "GiB at least by prediction, cpu has" in message


def test_prompts_that_no_machine_holds_are_refused(make_config: MakeConfig, write: Write) -> None:
    message = refused(config_of(make_config, write("bloom"), "workload.prompt_tokens=10000000000"))
    assert "at least by prediction" in message


def test_beside_batches_that_fit_it_leaves_the_space(make_config: MakeConfig, write: Write) -> None:
    space = preflighted(config_of(make_config, write("gpt2"), "space.workload.batch_size=[1,1000000000]")).space
    assert len(space.outside) == len(space) // 2


# ---- the device, the checkpoint and what they leave


QUANTISED: dict[str, Any] = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
REFUSED = [
    ("run", "model.path=./nowhere", "directory ./nowhere not found (working directory"),
    ("run -m", "model.path=./nowhere,./no", "directory ./nowhere not found (working directory"),
    ("plan", "model.path=quantised", "is quantised already (gptq, 4 bits)"),
    ("run", "model.path=gpt2 device=cuda", "device: cuda needs"),
    ("plan", "model.path=./nowhere", "directory ./nowhere not found (working directory"),
    ("run", "model.path=who/what", "HF_HUB_OFFLINE is set"),
    ("run", "model.path=bert", "bert is an encoder here"),
    ("run", f"model.path=gpt2 {LONG}", "300 + 4 tokens"),
]

COMMAND = """
import sys
import search.commands.plan, search.commands.run, search.config.study_config, search.study.preflight
from search import cli
def main(words):
    code = cli.main(words)
    assert not {"torch", "transformers", "mlflow"} & set(sys.modules)
    return code
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Result, list[str]]]:
    """What each command gave back and left in its folder, beside the models that were there."""
    models = tmp_path_factory.mktemp("models")
    for model_type, fields in (("gpt2", {"n_positions": 256}), ("bert", {}), ("llama", QUANTISED)):
        written(models, model_type, **fields)
    (models / "llama").rename(models / "quantised")
    folders = [tmp_path_factory.mktemp("command") for _ in REFUSED]
    commands = []
    for folder, (verb, given, _) in zip(folders, REFUSED, strict=True):
        shutil.copytree(models, folder, dirs_exist_ok=True)
        commands.append((folder, [*verb.split(), "experiment=ci_tiny", "model=causal_lm", *TEXTS, *given.split()]))
    answers = answers_of(COMMAND, commands, HF_HUB_OFFLINE="1")
    new = [
        sorted({str(file.relative_to(folder)) for file in folder.rglob("*")}
               - {str(file.relative_to(models)) for file in models.rglob("*")})
        for folder in folders
    ]  # fmt: skip
    asked = [(verb, given) for verb, given, _ in REFUSED]
    return dict(zip(asked, zip(answers, new, strict=True), strict=True))


@pytest.mark.parametrize(("verb", "given", "words"), REFUSED)
def test_a_refused_command_leaves_nothing_and_imports_no_torch(
    refusals: dict[tuple[str, str], tuple[Result, list[str]]], verb: str, given: str, words: str
) -> None:
    if "device=cuda" in given and gpus():
        pytest.skip("a GPU is here")
    result, left = refusals[verb, given]
    assert result.code == 2, result.err
    assert words in result.err
    assert "Traceback" not in result.err
    assert left == []


# ---- what executors answer


def changed(**metrics: Any) -> Answer:
    """An executor whose trials other than the baseline have other metrics; None leaves one out."""

    def answer(candidate: Any) -> Any:
        found = closed_form(candidate)
        if candidate.pruning.ratio == 0 and candidate.quantization.bits == 16:
            return found
        merged = {**found.metrics, **metrics}
        return replace(found, metrics={name: value for name, value in merged.items() if value != "gone"})

    return answer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, True, "fast", np.float64("nan")])
@pytest.mark.parametrize("name", ["speedup", "peak_memory", "accuracy", "throughput"])
def test_an_outcome_that_is_no_number_fails_and_is_named(name: str, value: Any) -> None:
    found = admitted(Measurement({"speedup": 1.0, "peak_memory": 1.0, "accuracy": 0.5, name: value}))
    assert isinstance(found, Failure)
    assert found.reason is Reason.NOT_FINITE
    assert name in found.message


@pytest.mark.parametrize("name", ["peak_memory", "accuracy"])
def test_so_does_one_that_lacks_what_is_needed(name: str) -> None:
    metrics = {"speedup": 1.0, "peak_memory": 1.0, "accuracy": 0.5}
    del metrics[name]
    found = admitted(Measurement(metrics))
    assert isinstance(found, Failure)
    assert name in found.message


@pytest.mark.parametrize("outcome", [None, 0.5, {"accuracy": 1.0}, "done", Measurement({"accuracy": 1.5})])
def test_so_does_what_is_no_outcome(outcome: Any) -> None:
    assert isinstance(admitted(outcome), Failure)


def test_other_kinds_of_numbers_are_taken() -> None:
    found = admitted(Measurement({"accuracy": np.float32(0.5), "examples": np.int64(3)}))
    assert isinstance(found, Measurement)
    assert {type(value) for value in found.metrics.values()} == {float}


def test_a_failure_keeps_what_is_a_number() -> None:
    found = admitted(Failure(Reason.TIMEOUT, "slow", math.nan, {"predicted_peak": 1.0, "x": math.nan}))
    assert found == Failure(Reason.TIMEOUT, "slow", 1.0, {"predicted_peak": 1.0})


@pytest.mark.parametrize("measured", [None, Measurement({"speedup": math.nan}), Measurement({"x": 1.0})])
def test_so_it_is_when_trials_are_timed_again(measured: Any) -> None:
    with pytest.raises(Unmeasured):
        require_timed(measured)


@pytest.mark.parametrize("metrics", [{"accuracy": math.nan}, {"speedup": math.inf}, {"peak_memory": "gone"}])
def test_a_study_goes_on_past_such_outcomes(make_config: MakeConfig, metrics: dict[str, Any]) -> None:
    result = run_study(make_config("n_trials=4", "sampler=random", answer=changed(**metrics)), Quiet())
    failed = [record for record in result.records if record.state == "failed"]
    assert len(failed) == len(result.records) - 1 > 0
    json.dumps([record.metrics for record in result.records], allow_nan=False)


# ---- a baseline that knows nothing


@pytest.mark.parametrize(
    ("metrics", "words"),
    [({"accuracy": 0.0}, "has an accuracy of 0, and"), ({"accuracy": 0.02, "chance": 0.025}, "guessing gives 0.025")],
)
@pytest.mark.parametrize(
    ("floor", "is_refused"),
    [
        (("accuracy_floor.epsilon=0.9",), True),
        (("accuracy_floor.epsilon=0.0",), False),
        (("accuracy_floor=absolute", "accuracy_floor.epsilon=0.01"), False),
    ],
)
def test_a_baseline_at_chance_is_no_reference_for_a_share_of_it(
    make_config: MakeConfig, metrics: dict[str, float], words: str, floor: tuple[str, ...], is_refused: bool
) -> None:
    def answer(candidate: Any) -> Measurement:
        found = closed_form(candidate)
        return replace(found, metrics={**found.metrics, **metrics})

    config = make_config("n_trials=2", "sampler=random", "confirm=false", *floor, answer=answer)
    if not is_refused:
        run_study(config, Quiet())
        return
    for _ in range(2):  # the second time it is known from the store
        with pytest.raises(BaselineFailed, match=words):
            run_study(config, Quiet())


def test_a_baseline_above_chance_is_one(make_config: MakeConfig) -> None:
    def answer(candidate: Any) -> Measurement:
        found = closed_form(candidate)
        return replace(found, metrics={**found.metrics, "chance": 0.1})

    assert run_study(make_config("n_trials=2", "sampler=random", answer=answer), Quiet()).records
