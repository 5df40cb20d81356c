"""The arguments of ``paretune.search`` are words of the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from paretune.asking import Question
from search.commands.composition import config_of
from search.errors import ConfigError

ROWS = [{"text": f"text {number}", "target": "x" * number} for number in range(1, 9)]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def gpt2(tiny_folder: Callable[[str], Path]) -> str:
    return str(tiny_folder("gpt2"))


def words(**arguments: Any) -> list[str]:
    named = ("model", "data", "calibration", "task", "metric", "floor", "overrides")
    known = {name: arguments.pop(name) for name in named if name in arguments}
    return Question(**known, settings=arguments).words()


def score(rows: Any) -> float:
    return float(len(rows))


def test_all_arguments_are_words(gpt2: str) -> None:
    found = words(
        model=gpt2, data="test.csv", calibration=Path("train.csv"), task={"kind": "choice", "text": "question"},
        metric="accuracy_norm", floor=0.98, n_trials=20, tracker="none", overrides=["seed=3"],
    )  # fmt: skip
    assert found == [
        "model=causal_lm", f"++model.path={gpt2}", "task=choice", "++task.text=question",
        "++task.data=test.csv", "++task.calibration=train.csv", "++task.metric=accuracy_norm",
        "++accuracy_floor.epsilon=0.98", "++n_trials=20", "tracker=none", "seed=3",
    ]  # fmt: skip


def test_nothing_asked_is_nothing_said() -> None:
    assert words() == []
    assert words(experiment="ci_tiny") == ["experiment=ci_tiny"]


@pytest.mark.parametrize(("family", "head"), [("llama", "causal_lm"), ("bert", "encoder"), ("t5", "seq2seq")])
def test_the_head_follows_from_the_checkpoint(tiny_folder: Callable[[str], Path], family: str, head: str) -> None:
    folder = tiny_folder(family)
    assert words(model=folder) == [f"model={head}", f"++model.path={folder}"]
    assert words(model=folder, head="encoder")[0] == "model=encoder"


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("BertForSequenceClassification", "classifier"),
        ("BertForTokenClassification", "token_classifier"),
        ("BertForQuestionAnswering", "question_answering"),
        ("BertForMaskedLM", "encoder"),
    ],
)
def test_an_encoders_own_head_follows_from_its_architecture(
    tiny_folder: Callable[[str], Path], tmp_path: Path, architecture: str, head: str
) -> None:
    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}), encoding="utf-8")
    assert words(model=folder)[0] == f"model={head}"


def test_a_task_that_was_chosen_is_not_guessed() -> None:
    for asked in ({"experiment": "ci_tiny"}, {"overrides": ["task=choice"]}, {"task": "text"}):
        assert "task=generation" not in words(data=ROWS, **asked)


def test_rows_in_memory_become_a_file_below_home_by_their_content(inside: Path) -> None:
    (task, data) = words(data=ROWS)
    assert task == "task=generation"
    file = inside / data.removeprefix("++task.data=")
    assert file.parent == inside / "mlruns" / "data"
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == ROWS
    assert words(data=pd.DataFrame(ROWS)) == [task, data]
    assert words(data=iter(ROWS), task="generation") == [task, data]
    for where in ({"home": "else"}, {"overrides": ["home=else"]}):
        assert data.replace("mlruns", "else") in words(data=ROWS, **where)


@pytest.mark.parametrize("key", ["data", "calibration"])
def test_rows_in_a_task_go_the_way_of_rows_beside_it(inside: Path, key: str) -> None:
    (beside,) = (word for word in words(task="generation", **{key: ROWS}) if key in word)
    for given in (ROWS, pd.DataFrame(ROWS), iter(ROWS)):
        assert words(task={"kind": "generation", key: given}) == ["task=generation", beside]
    assert words(task={"kind": "generation", key: Path("~") / "a.csv"})[1] == f"++task.{key}={Path.home()}/a.csv"
    assert words(task={"data": ROWS})[0] == "task=generation"  # guessed from it too


def test_rows_of_a_task_are_named_by_their_place_and_number(gpt2: str) -> None:
    rows = [*({"text": each["text"]} for each in ROWS), {"text": None}]
    small: dict[str, Any] = {"device": "cpu", "workload": {"prompt_tokens": 16}}
    question = Question(gpt2, task={"kind": "text", "data": rows}, settings={**small, "home": "a 'quoted' home"})
    with pytest.raises(ConfigError) as raised, question.rows_named():
        config_of(question.words())
    assert f"rows are wrong: task.data, row {len(ROWS)} has no 'text'" in str(raised.value)
    assert ".jsonl" not in str(raised.value)


@pytest.mark.parametrize("form", ["{file}", "mlruns/data/{file}", "{home}/mlruns/data/{file}"])
def test_a_message_about_rows_in_memory_keeps_what_stands_around_their_file(inside: Path, form: str) -> None:
    question = Question(data=ROWS)
    question.words()
    name = form.format(file=question.kept["data"].name, home=inside)
    with pytest.raises(ConfigError) as raised, question.rows_named():
        raise ConfigError(f"'x={name}' and ({name}, line 3), line 4")
    assert str(raised.value) == "'x=data' and (data, row 2), line 4"


def test_missing_values_of_a_table_are_null(inside: Path) -> None:
    table = pd.DataFrame({"text": ["a", None], "target": pd.array([1, pd.NA], dtype="Int64")})
    file = inside / words(data=table)[1].removeprefix("++task.data=")
    assert file.read_text(encoding="utf-8") == '{"text": "a", "target": 1}\n{"text": null, "target": null}\n'


def test_a_loaded_model_becomes_a_folder_below_home_by_its_content(gpt2: str, inside: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gpt2)
    head, path = words(model=model)
    assert head == "model=causal_lm"
    assert path.startswith("++model.path=mlruns/models/")
    assert words(model=model, tokenizer=AutoTokenizer.from_pretrained(gpt2))[1] == path
    assert sorted(each.name for each in (inside / "mlruns").iterdir()) == ["models"]  # no log of nothing


def test_the_words_of_a_text_task_are_a_study(gpt2: str) -> None:
    rows = [{"text": each["text"]} for each in ROWS]
    config = config_of(words(model=gpt2, data=rows, device="cpu", workload={"prompt_tokens": 16}, **{"task.tokens": 64,
                             "task.stride": 32, "task.calibration_tokens": 8}))  # fmt: skip
    assert config.task.data.startswith("mlruns/data/")
    assert config.task.tokens == 64


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"data": 3}, r"data: a path, a list of mappings .* got int"),
        ({"data": {"text": ["a"]}}, r"data: a path, a list of mappings .* got dict"),
        ({"calibration": [3], "task": "text"}, r"calibration: row 0 is no mapping .* int '3'"),
        ({"data": [{"question": "a"}]}, r"task: the columns question do not tell which kind is meant"),
        (
            {"data": pd.DataFrame([["a", "b"]], columns=["text", "text"])},
            r"data: the DataFrame has two columns .* 'text'",
        ),
        ({"model": 3}, r"model: a PreTrainedModel of transformers expected, got int; give one, or a folder"),
        ({"model": "./nowhere"}, r"model\.path: directory \./nowhere not found"),
        ({"overrides": "seed=3"}, r"overrides: a list of words of the command line expected, .* got 'seed=3'"),
        ({"overrides": [3]}, r"overrides: a list of words of the command line expected, as \['seed=3'\], got '\[3\]'"),
        ({"overrides": 3}, r"overrides: a list of words of the command line expected, .* got '3'"),
        ({"task": ["text"]}, r"task: the name of a task, or a mapping of its settings, .* got list \"\['text'\]\""),
        ({"task": {3: 4}}, r"task: the names of settings are texts, got int 3"),
        ({"task": {"kind": ["text"]}}, r"task: kind: the name of a task expected, got \"\['text'\]\""),
        ({"head": 3}, r"head: one of causal_lm, .* expected, got '3'"),
        ({"task": 3}, r"task: the name of a task, or a mapping of its settings, .* got int '3'"),
        ({"tasks": {"a": 3, "b": "boolq"}}, r"tasks\.a: the name of a task, or a mapping .* got int '3'"),
        ({"tasks": {"a": None, "b": "boolq"}}, r"tasks\.a: its kind or its data is missing"),
        ({"tasks": {"a": {"data": [{"odd": 1}]}, "b": "boolq"}}, r"tasks\.a: the columns odd do not tell which kind"),
        ({"tasks": {"a": {"data": "no.csv"}, "b": "boolq"}}, r"tasks\.a\.data: no\.csv not found"),
        (
            {"tasks": [{"kind": "text"}, "boolq"]},
            r"tasks: a list has names of tasks alone; with settings each has a name",
        ),
        (
            {"tasks": ["boolq", "piqa"], "data": ROWS},
            r"data: not together with tasks, each of which has its own, as tasks=",
        ),
        ({"tasks": {"a": "boolq", "b": "piqa"}, "task": "text"}, r"task: not together with tasks"),
        ({"task": {"kind": "text", "data": ROWS}, "data": ROWS}, r"data: given twice, as data= and in task; leave one"),
        ({"task": {"kind": "text", "metric": "a"}, "metric": "b"}, r"metric: given twice, as metric= and in task"),
        ({"task": {"kind": "text", "data": 3}}, r"task\.data: a path, a list of mappings .* got int"),
        ({"model": "./nowhere", "tokenizer": 5}, r"tokenizer: goes with a loaded model alone, a folder has its own"),
        ({"tokenizer": "./nowhere"}, r"tokenizer: goes with a loaded model alone"),
        ({"home": 3, "data": ROWS}, r"home: a path expected, got int '3'"),
        ({"metric": score, "task": "text"}, r"metric: a function is scored by task='custom' .* got task='text'"),
        ({"home": "/proc/none", "data": ROWS}, r"home: cannot write to /proc/none"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        words(**asked)
    assert "\n" not in str(raised.value)


def test_rows_in_memory_are_named_by_their_argument_and_number(gpt2: str, inside: Path) -> None:
    question = Question(
        gpt2, data=[*ROWS, {"text": None}], task="text", settings={"device": "cpu", "workload": {"prompt_tokens": 16}}
    )
    with pytest.raises(ConfigError) as raised, question.rows_named():
        config_of(question.words())
    assert f"rows are wrong: data, row {len(ROWS)} has no 'text'" in str(raised.value)
    assert ".jsonl" not in str(raised.value)


@pytest.mark.parametrize("admitted", [["mine"], "mine"])
def test_a_function_of_a_module_is_named_by_it(admitted: list[str] | str) -> None:
    assert words(metric=score, data="x.csv", allow_targets=admitted) == [
        "task=custom", "++task.data=x.csv", "++task.function=tests.paretune.test_asking:score",
        "++allow_targets=[mine,tests.paretune.test_asking]",
    ]  # fmt: skip
    assert words(metric=score, task={"function": score})[1:3] == [
        "++task.function=tests.paretune.test_asking:score", "++task.metric=tests.paretune.test_asking:score",
    ]  # fmt: skip


def test_a_model_that_is_not_here_yet_needs_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.asking.made_for", lambda path: None)
    with pytest.raises(ConfigError, match=r"head: some/model is not downloaded yet; give one of causal_lm"):
        words(model="some/model")
    assert words(model="some/model", head="causal_lm")[:2] == ["model=causal_lm", "++model.path=some/model"]


def test_several_tasks_are_asked_with_their_rows(gpt2: str) -> None:
    quiz = [{"text": f"which {number}?", "choices": ["a", "b"], "answer": number % 2} for number in range(8)]
    news = [{"text": f"what happened on day {number}", "id": number} for number in range(8)]
    found = words(
        model=gpt2, tasks={"quiz": {"kind": "choice", "data": quiz}, "news": {"data": news}, "weights": {"quiz": 2}},
        accuracy_floor={"quiz": 0.9}, workload={"prompt_tokens": 16, "new_tokens": 4},
    )  # fmt: skip
    assert found[2] == "tasks={quiz:choice,news:text}"
    task = config_of(found).task
    assert [type(each).__name__ for each in task.tasks.values()] == ["Choice", "Text"]
    assert task.weights == {"quiz": 2.0}
    with pytest.raises(ConfigError, match=r"tasks\.news\.data: .*DataFrame expected, got int"):
        words(model=gpt2, tasks={"quiz": "boolq", "news": {"data": 7}})
