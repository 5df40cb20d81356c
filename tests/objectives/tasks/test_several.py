"""Several tasks: one study, a figure each, and a mean whose error is that of independent parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from objectives.errors import DataError, ModelError
from objectives.tasks.domains import Domains
from objectives.tasks.overlap import Excerpts
from objectives.tasks.paired import paired_difference
from objectives.tasks.several import Several, numbered, tasks_of, weighted_mean, weights_of
from objectives.types import Head, Score


@dataclass(frozen=True)
class Constant:
    """Answers the same whatever is asked."""

    accuracy: float = 0.5
    head: Head = "causal_lm"
    wrong: str = ""

    def calibration(self, _model: Any) -> dict[str, list[Any]]:
        import torch

        return {"a": [torch.zeros((1, 2), dtype=torch.int64)], "b": [torch.ones((1, 3), dtype=torch.int64)]}

    def evaluate(self, _model: Any) -> Score:
        return Score(self.accuracy, 0.1, (self.accuracy,), {"perplexity": 2.0}, ("x",))

    def require_documents(self) -> None:
        if self.wrong:
            raise DataError(self.wrong)


@dataclass(frozen=True)
class Wrong(Constant):
    """Raises ``said`` whatever it is asked, or where that is empty has a remark."""

    said: str = ""
    remark: str = ""
    tokens: int = 9
    text: str = "text"

    def _ask(self, *_model: Any) -> Any:
        if self.said:
            raise DataError(self.said)

    require_documents = calibration = evaluate = _ask

    def remarks(self) -> tuple[str, ...]:
        return (self.remark,)

    def excerpts(self, model: Any) -> Excerpts:
        self._ask(model)
        return Excerpts(remarks=self.remarks())


def several(**changed: Any) -> Several:
    return Several(**{"tasks": {"quiz": Constant(0.8), "news": Constant(0.4)}, **changed})


def test_every_task_calibrates_as_one_domain_of_its_name() -> None:
    found = several().calibration(Model())  # type: ignore[arg-type]
    assert {name: [batch.numel() for batch in batches] for name, batches in found.items()} == {
        "quiz": [2, 3], "news": [2, 3]
    }  # fmt: skip


def test_the_mean_weighs_as_it_is_told() -> None:
    score = several(weights={"quiz": 3.0}).evaluate(None)  # type: ignore[arg-type]
    assert score.accuracy == pytest.approx(0.75 * 0.8 + 0.25 * 0.4)
    assert score.stderr == pytest.approx(math.hypot(0.75 * 0.1, 0.25 * 0.1))
    assert (score.extra["accuracy.quiz"], score.extra["perplexity.news"]) == (0.8, 2.0)
    assert score.ids == ("quiz:x", "news:x")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tasks": {"mean": Constant(), "a": Constant()}}, "'mean' is the name of a setting"),
        ({"tasks": {"Quiz 1": Constant(), "a": Constant()}}, "got 'Quiz 1'"),
        ({"weights": {"quizz": 1.0}}, "no task 'quizz'; tasks: quiz, news"),
    ],
)
def test_names_that_cannot_be_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        several(**changed)


def test_what_is_wrong_with_a_task_names_its_own_setting() -> None:
    tasks = {"quiz": Constant(), "news": Constant(wrong="task.text: no column 'a'")}
    with pytest.raises(DataError, match=r"^tasks\.news\.text: no column 'a'$"):
        several(tasks=tasks).require_documents()
    with pytest.raises(ModelError, match="different kinds of model"):
        assert several(tasks={"quiz": Constant(), "news": Constant(head="encoder")}).head


class Model:
    """As much of a model as calibration rows are checked by."""

    vocabulary = 9


def test_whatever_a_task_raises_later_names_its_own_settings_too() -> None:
    said = "task.tokens: 9 at most, task.jsonl and my_task.text are files; give task.text alone"
    tasks = {"quiz": Constant(), "news": Wrong(said=said)}
    wanted = "tasks.news.tokens: 9 at most, task.jsonl and my_task.text are files; give tasks.news.text alone"
    made: Any = several(tasks=tasks)
    for ask in (made.calibration, made.excerpts, made.evaluate):
        with pytest.raises(DataError) as told:
            ask(Model())
        assert str(told.value) == wanted


def test_a_domain_names_its_own_settings_within_several_tasks_too() -> None:
    domains = Domains(served={"de": Wrong(said="task.text: no column 'a'; give task.text")}, unseen={"fr": Constant()})
    with pytest.raises(DataError, match=r"^task\.served\.de\.text: no column 'a'; give task\.served\.de\.text$"):
        domains.require_documents()
    with pytest.raises(DataError, match=r"^tasks\.news\.served\.de\.text: no .*; give tasks\.news\.served\.de\.text$"):
        several(tasks={"quiz": Constant(), "news": domains}).require_documents()
    unseen = Domains(served={"de": Constant()}, unseen={"fr": Constant(wrong="too few documents")})
    with pytest.raises(DataError, match=r"^task\.unseen\.fr: too few documents$"):
        unseen.require_documents()


def test_what_tasks_and_domains_remark_is_told_below_their_names() -> None:
    remarking = Wrong(remark="task.tokens: 3 of 4 rows are cut")
    made = several(tasks={"quiz": Domains(served={"de": remarking}, unseen={"fr": remarking}), "news": remarking})
    wanted = ("tasks.quiz.served.de.tokens", "tasks.quiz.unseen.fr.tokens", "tasks.news.tokens")
    lines = tuple(f"{key}: 3 of 4 rows are cut" for key in wanted)
    assert made.remarks() == lines
    assert tuple(made.excerpts(None).remarks) == lines  # type: ignore[arg-type]


def test_one_task_is_one_without_a_name() -> None:
    task = Constant()
    assert (tasks_of(task), weights_of(task)) == ({"": task}, {"": 1.0})
    assert numbered({"a": ((), 2), "b": (("x",), 1)}) == ("a:0", "a:1", "b:x")


def test_the_interval_of_the_mean_holds_the_true_difference_as_often_as_it_says() -> None:
    """400 pairs of studies with two tasks of unlike sizes and a known true difference of -0.03."""
    draw, held, weights = np.random.default_rng(1), 0, {"a": 0.7, "b": 0.3}
    for _ in range(400):
        metrics = {}
        for name, count in (("a", 120), ("b", 60)):
            base = draw.random(count)
            ours = base - 0.03 + 0.1 * draw.standard_normal(count)
            scores = [Score(float(each.mean()), 0.0, tuple(each)) for each in (ours, base)]
            found = paired_difference(*scores)
            assert found is not None
            metrics[name] = {
                "accuracy": 0.5, "accuracy_stderr": 0.1, "accuracy_difference": found.value,
                "accuracy_difference.low": found.low, "accuracy_difference.high": found.high,
            }  # fmt: skip
        mean = weighted_mean(metrics, weights)
        held += mean["accuracy_difference.low"] <= -0.03 <= mean["accuracy_difference.high"]
    assert 0.92 <= held / 400 <= 0.98
