"""A function of one's own scores a model by row, by all rows, or by answers and a metric; errors are one line."""

from __future__ import annotations

import importlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

from objectives import content_hash
from objectives.content_hash import Indescribable, digest
from objectives.errors import DataError, NotFinite, TaskError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks import model_under_test, provenance
from objectives.tasks.choice import Choice
from objectives.tasks.custom import Custom, CustomRows
from objectives.tasks.data import file_states
from objectives.tasks.decoding import Ends, continuations
from objectives.tasks.embedding import embed
from objectives.tasks.finite import checked
from objectives.tasks.model_under_test import ModelUnderTest
from objectives.tasks.paired import follows_from_examples, paired_difference
from objectives.tasks.progress import followed
from objectives.tasks.resampling import replicates_by
from tests.objectives.conftest import Tiny

Rows = Sequence[Mapping[str, Any]]
ROWS = [{"text": f"the row {number} ", "wanted": letter} for number, letter in enumerate("abcdefgh")]
HELD = [{"text": f"calibrates {number}", "wanted": "x"} for number in range(4)]


@pytest.fixture
def decoder(tiny: Tiny) -> TorchRunner:
    model = tiny("llama").copy()
    model.module.float()
    return TorchRunner(model)


@pytest.fixture
def encoder(tiny: Tiny) -> TorchRunner:
    model = tiny("bert").copy()
    model.module.float()
    return TorchRunner(model)


@pytest.fixture
def classifier(tiny: Tiny) -> TorchRunner:
    model = tiny("bert, classifier").copy()
    model.module.float()
    return TorchRunner(model)


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


Make = Callable[..., Custom]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(function: Any, metric: Any = None, kind: type[Custom] = Custom, **settings: Any) -> Custom:
        files = {"data": write(tmp_path / "a.jsonl", ROWS), "calibration": write(tmp_path / "b.jsonl", HELD)}
        return kind(function=function, metric=metric, **{**files, **settings})

    return made


# ---- what a function returns


def by_place(_model: ModelUnderTest, rows: Rows) -> list[float]:
    return ["abcdefgh".index(row["wanted"]) / 10 for row in rows]


def test_a_number_for_each_row_makes_their_mean(decoder: TorchRunner, make: Make) -> None:
    score = make(by_place).evaluate(decoder)
    assert score.examples == tuple(number / 10 for number in range(8))
    assert score.accuracy == pytest.approx(0.35)
    assert score.stderr == pytest.approx(np.std(score.examples, ddof=1) / math.sqrt(8))
    assert score.ids[2] == "a.jsonl, line 3"
    assert follows_from_examples(score)


def written_at_once(model: ModelUnderTest, rows: Rows) -> list[float]:
    return [float(bool(text)) for text in model.generate([row["text"] for row in rows], 2)]


def written_one_by_one(model: ModelUnderTest, rows: Rows) -> list[float]:
    return [float(bool(text)) for row in rows for text in model.generate([row["text"]], 2)]


@pytest.mark.parametrize(
    ("function", "kind", "total"),
    [
        (written_at_once, Custom, 8), (written_one_by_one, Custom, 0), (by_place, Custom, 0),
        (written_at_once, CustomRows, 8), (written_one_by_one, CustomRows, 8), (by_place, CustomRows, 8),
    ],
)  # fmt: skip
def test_how_far_scoring_is_is_known_where_rows_are_read_together(
    function: Any, kind: Any, total: int, decoder: TorchRunner, make: Make, heard: list[Any]
) -> None:
    with followed():
        make(function, kind=kind, batch_rows=2).evaluate(decoder)
    assert {far.total for far in heard if far is not None} == {0, total}
    assert max(far.done for far in heard if far is not None) == (0 if (function, total) == (by_place, 0) else 8)


def test_what_a_function_does_to_its_rows_is_not_seen_by_the_next_call(
    decoder: TorchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "GRAIN", -(10**12))
    data = write(tmp_path / "a.jsonl", [{"text": f"row {number}", "marks": [0.5]} for number in range(4)])

    def emptied(_model: ModelUnderTest, rows: Rows) -> list[float]:
        return [row["marks"].pop() for row in rows]

    task = Custom(data=data, function=emptied)
    assert task.evaluate(decoder) == task.evaluate(decoder)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, tuple, iter])
def test_numbers_may_come_in_any_kind_of_list(decoder: TorchRunner, make: Make, kind: Any) -> None:
    score = make(lambda model, rows: kind(by_place(model, rows))).evaluate(decoder)
    assert score.examples == pytest.approx([number / 10 for number in range(8)])


def test_one_number_for_all_rows_has_no_interval(decoder: TorchRunner, make: Make) -> None:
    one = make(lambda model, rows: len(rows) / 10).evaluate(decoder)
    other = make(lambda model, rows: len(rows) / 16).evaluate(decoder)
    assert (one.accuracy, one.examples, one.replicates) == (0.8, (0.8,), ())
    assert not follows_from_examples(one)
    assert paired_difference(other, one) is None
    assert checked(one, decoder) == one


def share(answers: Sequence[str], rows: Rows) -> float:
    """No mean of rows: the square of the share that is right."""
    return (sum(answer == row["wanted"] for answer, row in zip(answers, rows)) / len(rows)) ** 2


def first_letters(_model: ModelUnderTest, rows: Rows) -> list[str]:
    return [row["wanted"] if row["wanted"] < "f" else "z" for row in rows]


def test_a_metric_of_answers_is_replicated_over_resampled_rows(decoder: TorchRunner, make: Make) -> None:
    score = make(first_letters, share, replicates=200).evaluate(decoder)
    hits = np.array([1, 1, 1, 1, 1, 0, 0, 0])
    assert score.accuracy == pytest.approx((5 / 8) ** 2)
    assert score.examples == tuple(map(float, hits))
    assert score.replicates == pytest.approx(replicates_by(lambda places: float(hits[places].mean() ** 2), 8, 200))
    assert score.stderr == pytest.approx(np.std(score.replicates, ddof=1))
    assert not follows_from_examples(score)


def test_the_model_is_asked_once_however_often_the_metric_is(decoder: TorchRunner, make: Make) -> None:
    asked: list[int] = []

    def answers(model: ModelUnderTest, rows: Rows) -> list[str]:
        asked.append(len(rows))
        return first_letters(model, rows)

    make(answers, share).evaluate(decoder)
    assert asked == [8]


def test_a_metric_that_one_row_does_not_have_counts_as_0_there(decoder: TorchRunner, make: Make) -> None:
    def spearman(answers: Sequence[float], rows: Rows) -> float:
        if len(rows) == 1:
            raise ZeroDivisionError
        return 0.5

    assert make(by_place, spearman).evaluate(decoder).examples == (0.0,) * 8


def test_rows_by_themselves_give_the_same_score_in_parts(decoder: TorchRunner, make: Make) -> None:
    sizes: list[int] = []

    def counted(model: ModelUnderTest, rows: Rows) -> list[float]:
        sizes.append(len(rows))
        return by_place(model, rows)

    task = make(counted, kind=CustomRows)
    assert isinstance(task, CustomRows)
    whole = make(by_place).evaluate(decoder)
    assert task.evaluate(decoder) == whole
    (part,) = task.parts(decoder, [5, 0])
    assert (part.examples, part.ids) == ((0.5, 0.0), (whole.ids[5], whole.ids[0]))
    assert sizes == [8, 2]


def test_a_function_that_changes_a_row_does_not_change_the_next_call(decoder: TorchRunner, make: Make) -> None:
    def spoils(model: ModelUnderTest, rows: Any) -> list[float]:
        found = by_place(model, rows)
        for row in rows:
            row["wanted"] = "h"
        return found

    task = make(spoils)
    assert task.evaluate(decoder) == task.evaluate(decoder)


# ---- what is wrong


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([0.1] * 7, "returned 7 numbers for 8 rows"),
        (None, "must return numbers, one for each row; got None"),
        ("good", "must return numbers, one for each row; got str 'good'"),
        ([0.1] * 7 + ["x"], "must return a number for a.jsonl, line 8, got str 'x'"),
        ([0.1, 50.0] + [0.0] * 6, r"returned 50 for a.jsonl, line 2, expected within \[0, 1\]; is it in percent\?"),
        (-0.5, r"returned -0.5 for all rows, expected within \[0, 1\]"),
        (True, "got bool True"),
    ],
)
def test_what_is_no_score_is_told_in_one_line(decoder: TorchRunner, make: Make, answer: Any, words: str) -> None:
    with pytest.raises(TaskError, match=rf"^task\.function: {__name__}\..*{words}") as caught:
        make(lambda model, rows: answer).evaluate(decoder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [bool, np.bool_, torch.tensor])
def test_whether_a_row_is_right_is_a_number_for_it(decoder: TorchRunner, make: Make, kind: Any) -> None:
    score = make(lambda model, rows: [kind(place % 2 == 0) for place in range(len(rows))]).evaluate(decoder)
    assert score.examples == (1.0, 0.0) * 4


@pytest.mark.parametrize("answer", [math.nan, [0.5] * 7 + [math.inf]])
def test_a_number_that_is_not_finite_is_told_with_its_row(decoder: TorchRunner, make: Make, answer: Any) -> None:
    with pytest.raises(NotFinite, match=r"^task\.function: .*returned (nan for all rows|inf for a\.jsonl, line 8)$"):
        make(lambda model, rows: answer).evaluate(decoder)


def fails(model: ModelUnderTest, rows: Rows) -> list[float]:
    return [row["missing"] for row in rows]


def test_what_a_function_raises_is_told_with_file_and_line(decoder: TorchRunner, make: Make) -> None:
    words = rf"^task\.function: {__name__}\.fails raised KeyError: 'missing' \(test_custom\.py, line \d+\)$"
    for kind in (Custom, CustomRows):
        with pytest.raises(TaskError, match=words):
            make(fails, kind=kind).evaluate(decoder)
    with pytest.raises(TaskError, match=r"^task\.metric: .*raised AttributeError"):
        make(first_letters, lambda answers, rows: answers.mean()).evaluate(decoder)


def test_memory_that_runs_out_in_a_function_stays_what_it_is(decoder: TorchRunner, make: Make) -> None:
    def hungry(model: ModelUnderTest, rows: Rows) -> None:
        raise RuntimeError("CUDA out of memory.")

    with pytest.raises(RuntimeError, match="out of memory"):
        make(hungry).evaluate(decoder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"function": lambda rows: 1.0}, r"must take \(model, rows\), it takes \(rows\)"),
        ({"function": by_place, "metric": lambda answers: 1.0}, r"must take \(answers, rows\), it takes \(answers\)"),
        ({"function": by_place, "metric": share, "kind": CustomRows}, "a metric of all rows needs all of them at once"),
        ({"function": "score"}, "callable"),
        ({"function": by_place, "replicates": 99}, "greater than or equal to 100"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Make, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        make(**settings)


def test_a_missing_column_is_told_before_a_model_is_there(make: Make) -> None:
    with pytest.raises(DataError, match=r"task\.text: .*no column 'prompt', it has text, wanted"):
        make(by_place, text="prompt").require_documents()
    with pytest.raises(DataError, match=r"task\.target: .*no column 'answer'"):
        make(by_place, target="answer").require_documents()
    make(by_place, target="wanted").require_documents()


def test_a_text_that_calibrates_and_is_scored_is_refused(make: Make, tmp_path: Path) -> None:
    twice = write(tmp_path / "c.jsonl", [{"text": f" {ROWS[3]['text']}", "wanted": "other"}])
    with pytest.raises(DataError, match=r"task\.calibration: 1 of 8 scored rows calibrate too: a\.jsonl, line 4"):
        make(by_place, calibration=twice).require_documents()


# ---- calibration


def test_texts_calibrate_with_their_targets(decoder: TorchRunner, encoder: TorchRunner, make: Make) -> None:
    tokenizer = decoder.tokenizer
    both = make(by_place, target="wanted").calibration(decoder.model)["task"]
    target = tokenizer("x", add_special_tokens=False)["input_ids"]
    wanted = [tokenizer(row["text"])["input_ids"] + target for row in HELD]
    assert sorted(row for batch in both for row in batch.tolist()) == sorted(wanted)
    alone = make(by_place, head="encoder").calibration(encoder.model)["task"]
    texts = [encoder.tokenizer(row["text"])["input_ids"] for row in HELD]
    assert sorted(row for batch in alone for row in batch.ids.tolist()) == sorted(texts)


# ---- what the model offers


def test_answers_and_likelihoods_are_those_of_our_own_tasks(decoder: TorchRunner, tmp_path: Path) -> None:
    rows = [{"text": f"a prompt {number} ", "choices": ["yes", "no way"], "answer": 0} for number in range(3)]
    data, held = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", [{**rows[0], "text": "b"}])
    subject, prompts = ModelUnderTest(decoder, 64, 2), [row["text"] for row in rows]
    choice = Choice(data=data, calibration=held)
    found = choice._likelihoods(decoder, choice._questions(choice.divided().scored))
    np.testing.assert_allclose(subject.log_likelihoods(prompts, [[" yes", " no way"]] * 3), found, rtol=1e-5)
    ids = [decoder.tokenizer(prompt)["input_ids"] for prompt in prompts]
    ends = Ends(frozenset({decoder.tokenizer.eos_token_id}))
    assert subject.generate(prompts, new_tokens=6) == continuations(decoder, ids, 6, ends, 3)
    stop = subject.generate(prompts[:1], new_tokens=6)[0][2:4]
    assert stop not in subject.generate(prompts[:1], new_tokens=6, stop=[stop])[0]
    assert (subject.head, subject.tokenizer, subject.runner) == ("causal_lm", decoder.tokenizer, decoder)


def test_vectors_are_those_of_an_embedding_in_the_order_of_the_texts(encoder: TorchRunner) -> None:
    texts = ["a", "some words", "some more words, longer", "b"]
    wanted = torch.cat([embed(encoder, [text], 24) for text in texts])
    np.testing.assert_allclose(ModelUnderTest(encoder, 24, 2).encode(texts), wanted, rtol=1e-4, atol=1e-5)


def test_classes_are_those_of_the_logits_alone_and_in_pairs(classifier: TorchRunner) -> None:
    subject = ModelUnderTest(classifier, 24, 2)
    texts, others = ["a text", "another, longer", "b"], ["with", "a second", "one"]
    for second in (None, others):
        found = subject.predict_proba(texts, second)
        for place, text in enumerate(texts):
            read = classifier.tokenizer(*(text,) if second is None else (text, second[place]), return_tensors="pt")
            logits = classifier.module(**read).logits[0]
            np.testing.assert_allclose(found[place], logits.softmax(dim=-1), rtol=1e-4)
    names = classifier.labels
    assert subject.predict(texts) == [names[place] for place in subject.predict_proba(texts).argmax(axis=1)]
    assert subject.labels == names


def test_no_texts_have_no_answers(decoder: TorchRunner, encoder: TorchRunner, classifier: TorchRunner) -> None:
    assert ModelUnderTest(decoder, 24, 2).generate([], 4) == []
    assert ModelUnderTest(decoder, 24, 2).log_likelihoods([], []) == []
    assert len(ModelUnderTest(encoder, 24, 2).encode([])) == 0
    assert ModelUnderTest(classifier, 24, 2).predict([]) == []


def test_a_chat_template_is_used_where_it_is_asked_for(decoder: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = ModelUnderTest(decoder, 64, 2)
    with pytest.raises(TaskError, match="chat template, this one has none"):
        subject.generate(["a"], new_tokens=5, chat=True)
    monkeypatch.setattr(decoder.tokenizer, "chat_template", "{% for m in messages %}<{{m.content}}>{% endfor %}")
    bare = ModelUnderTest(decoder, 64, 2)
    assert subject.generate(["a"], new_tokens=5, chat=True) == bare.generate(["<a>"], new_tokens=5)


def test_a_chat_template_that_refuses_is_told(decoder: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder.tokenizer, "chat_template", "{{ raise_exception('system first') }}")
    with pytest.raises(
        TaskError, match=r"^task\.chat: .*refuses what a user says alone \(system first\); task\.chat=false"
    ):
        ModelUnderTest(decoder, 64, 2).generate(["a"], new_tokens=5, chat=True)


def test_texts_come_as_any_iterable_and_one_stop_is_a_text(decoder: TorchRunner) -> None:
    subject = ModelUnderTest(decoder, 64, 2)
    whole = subject.generate(["a", "b c"], 8)
    assert subject.generate((text for text in ["a", "b c"]), 8) == whole
    stop = whole[0][2:4]
    assert subject.generate(["a"], 8, stop=stop) == subject.generate(["a"], 8, stop=[stop]) != whole[:1]
    assert subject.generate(["a"], 8, stop=whole[0][::-1] + "?") == whole[:1]
    with pytest.raises(TaskError, match=r"^generate: a list of texts expected, got int 7$"):
        subject.generate(7, 8)  # type: ignore[arg-type]


def test_what_a_model_of_this_kind_does_not_do_is_told(decoder: TorchRunner, encoder: TorchRunner) -> None:
    one, other = ModelUnderTest(decoder, 64, 2), ModelUnderTest(encoder, 64, 2)
    with pytest.raises(
        TaskError, match=r"^encode: model\.head is causal_lm, which has generate and log_likelihoods and runner$"
    ):
        one.encode(["a"])
    with pytest.raises(TaskError, match=r"^generate: model\.head is encoder, which has encode and runner$"):
        other.generate(["a"])
    with pytest.raises(TaskError, match=r"^generate: a list of texts expected, got str 'a text'$"):
        one.generate("a text")
    with pytest.raises(TaskError, match=r"^log_likelihoods: 2 prompts need as many lists of continuations$"):
        one.log_likelihoods(["a", "b"], [["c"]])
    with pytest.raises(
        TaskError, match=r"^generate: new_tokens must be a whole number > 0 and < task\.tokens=64, got 64$"
    ):
        one.generate(["a"], new_tokens=64)


def test_a_model_that_went_mad_fails_whatever_the_function_makes_of_it(
    decoder: TorchRunner, encoder: TorchRunner, make: Make
) -> None:
    decoder.module.model.norm.weight.fill_(math.nan)
    encoder.module.embeddings.LayerNorm.weight.fill_(math.nan)
    named = "the model's numbers are not finite: the model's "
    with pytest.raises(NotFinite, match=named + "model.norm.weight holds NaN"):
        make(lambda model, rows: len(model.generate(["a"], 2)[0]) / 10).evaluate(decoder)
    with pytest.raises(NotFinite, match=named):
        ModelUnderTest(decoder, 64, 2).log_likelihoods(["a"], [["b"]])
    with pytest.raises(NotFinite, match=named):
        ModelUnderTest(encoder, 64, 2).encode(["a"])


def test_texts_that_are_cut_are_counted(decoder: TorchRunner, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    model_under_test._warn.cache_clear()
    short, long = ModelUnderTest(decoder, 8, 2), ModelUnderTest(decoder, 64, 2)
    assert short.generate(["a long prompt"], 4) == long.generate(["ompt"], 4)  # a token a letter
    assert (short.cut, long.cut) == (1, 0)
    task = make(lambda model, rows: float(len(model.generate([row["text"] for row in rows], 4)) > 0), tokens=8)
    with caplog.at_level(logging.WARNING):
        task.evaluate(decoder)
        task.evaluate(decoder)
    assert [record.message for record in caplog.records] == [
        "task.tokens: 8 of the texts that the function gave are cut to 8 tokens"
    ]


def test_a_race_that_is_decided_early_tells_what_was_cut(
    decoder: TorchRunner, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    model_under_test._warn.cache_clear()

    def rated(model: ModelUnderTest, rows: Rows) -> list[float]:
        return [float(len(text) > 0) for text in model.generate([row["text"] for row in rows], 4)]

    parts = make(rated, kind=CustomRows, tokens=8).parts(decoder, [0, 1])
    with caplog.at_level(logging.WARNING):
        assert next(iter(parts)).examples
        parts.close()  # type: ignore[attr-defined]
    assert [record.message for record in caplog.records] == [
        "task.tokens: 2 of the texts that the function gave are cut to 8 tokens"
    ]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("causal_lm", ("rows are cut at their beginning",)),
        ("seq2seq", ("sources are cut at their end", "targets are cut at their end")),
        ("encoder", ("rows are cut at their end",)),
    ],
)
def test_calibration_rows_that_are_cut_are_counted(
    decoder: TorchRunner, encoder: TorchRunner, make: Make, tmp_path: Path, head: Any, said: Sequence[str]
) -> None:
    held = write(tmp_path / "c.jsonl", [{"text": "much too long", "wanted": "as long"}, {"text": "no", "wanted": "no"}])
    model = (encoder if head == "encoder" else decoder).model  # a token a letter
    made = make(by_place, head=head, calibration=held, target="wanted", tokens=6)
    wanted = [f"task.tokens: 1 of 2 calibration {each} to 6 tokens" for each in said]
    assert list(made.excerpts(model).remarks) == wanted
    long = make(by_place, head=head, calibration=held, target="wanted", tokens=64)
    assert not long.excerpts(model).remarks


# ---- its code


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of a user's with a function."""
    (tmp_path / "metric_of_mine.py").write_text("def score(model, rows):\n    return 0.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("metric_of_mine")
    sys.modules.pop("metric_of_mine", None)


def test_the_module_of_a_function_is_own_code(own: Any, make: Make, tmp_path: Path) -> None:
    task = make(own.score)
    (source,) = provenance.code_sources(provenance.own_code(task))
    assert source.path == str(tmp_path / "metric_of_mine.py")
    assert provenance.own_classes(task) == []
    assert provenance.own_code(make(checked)) == []  # ours


def test_another_code_of_a_function_is_another_name(own: Any, make: Make, tmp_path: Path) -> None:
    before = digest(make(own.score))
    assert before == digest(make(own.score))
    (tmp_path / "metric_of_mine.py").write_text("def score(model, rows):\n    return 0.6\n")
    content_hash._source.cache_clear()  # as in another process
    assert digest(make(own.score)) != before


def test_a_function_without_a_name_of_its_own_has_none(make: Make) -> None:
    values = [1.0]

    def closes(model: Any, rows: Any) -> float:
        return values[0]

    for function in (closes, lambda model, rows: 1.0):
        with pytest.raises(Indescribable):
            digest(make(function))


def test_a_generator_that_raises_is_an_error_of_one_line(decoder: TorchRunner, make: Make) -> None:
    def rated(model: Any, rows: Rows) -> Iterator[float]:
        for row in rows:
            yield float(len(row["nope"]))

    with pytest.raises(TaskError, match=r"^task\.function: .*rated raised KeyError.*test_custom\.py, line \d+\)$"):
        make(rated).evaluate(decoder)


# ---- a metric that some rows do not define


def area(found: list[Any], rows: list[Any]) -> float:
    """The share of pairs of a right and a wrong row that are in order; it raises where one kind is missing."""
    right, wrong = ([one for one, row in zip(found, rows) if row["right"] == kind] for kind in (True, False))
    return sum(one > other for one in right for other in wrong) / (len(right) * len(wrong))


def scores_of(model: Any, rows: list[Any]) -> list[float]:
    return [row["score"] for row in rows]


def test_a_resample_without_a_metric_is_drawn_anew(decoder: TorchRunner, tmp_path: Path) -> None:
    rows = [{"text": f"row {place}", "right": place in (3, 17), "score": place * 7 % 30} for place in range(30)]
    made = Custom(
        data=write(tmp_path / "few.jsonl", rows), calibration=write(tmp_path / "held.jsonl", [{"text": "held"}]),
        function=scores_of, metric=area,
    )  # fmt: skip
    score = made.evaluate(decoder)
    assert score.accuracy == pytest.approx(area(scores_of(None, rows), rows))
    assert len(score.replicates) == 1000
    assert np.isfinite(score.replicates).all()
    assert np.mean(score.replicates) == pytest.approx(score.accuracy, abs=0.05)
    assert made.evaluate(decoder).replicates == score.replicates


def test_a_metric_that_no_resample_defines_raises_what_the_function_raises(
    decoder: TorchRunner, tmp_path: Path
) -> None:
    def whole(found: list[Any], rows: list[Any]) -> float:
        if len({row["text"] for row in rows}) < len(rows):
            raise ValueError("the same row twice")
        return 0.5

    made = Custom(
        data=write(tmp_path / "a.jsonl", [{"text": f"row {place}", "score": 1} for place in range(12)]),
        calibration=write(tmp_path / "held.jsonl", [{"text": "held"}]), function=scores_of, metric=whole,
    )  # fmt: skip
    with pytest.raises(TaskError, match=r"task\.metric: .*whole raised ValueError: the same row twice"):
        made.evaluate(decoder)
