"""What a task of one's own answers is a score and token batches, or is told in one line that names its class."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from objectives.errors import TaskError
from objectives.models import LoadedModel
from objectives.tasks.answers import calibrated, scored, told
from objectives.tasks.domains import Domains
from objectives.types import Head, Score

GOOD = Score(0.5, 0.1, (0.5, 0.5), {"perplexity": 3.0}, ("a", "b"))
ROWS = torch.arange(8).view(2, 4)


@dataclass(frozen=True)
class Task:
    answer: Any = GOOD
    rows: Any = None
    head: Head = "causal_lm"

    def calibration(self, _model: object) -> Any:
        return {"a": [ROWS]} if self.rows is None else self.rows

    def evaluate(self, _model: object) -> Any:
        return self.answer


def test_a_score_stays_and_its_lists_become_tuples() -> None:
    assert scored(Task(), GOOD) == GOOD
    assert scored(Task(), replace(GOOD, examples=[0.5, 0.5], ids=["a", "b"])) == GOOD  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0.5, "got float 0.5"),
        (None, "got None"),
        ({"accuracy": 0.5}, "got dict"),
        (replace(GOOD, accuracy=None), "accuracy is None"),
        (replace(GOOD, accuracy=True), "accuracy is bool True"),
        (replace(GOOD, accuracy=torch.ones(2)), "accuracy is Tensor"),
        (replace(GOOD, extra={"perplexity": None}), "perplexity is None"),
        (replace(GOOD, extra=[1.0]), "extra is list"),
        (replace(GOOD, examples=()), "no examples"),
        (replace(GOOD, examples=None), "must be tuples"),
        (replace(GOOD, examples=("a", "b")), "examples must be numbers, got str 'a'"),
        (replace(GOOD, ids=("a",)), "2 examples and 1 different ids"),
        (replace(GOOD, ids=("a", "a")), "2 examples and 1 different ids"),
        (replace(GOOD, strata=(3,)), r"strata \(3,\) are of 3 examples, it has 2"),
        (replace(GOOD, replicates=(0.5,) * 99), r"99 replicates: at least 100, or none"),
        (replace(GOOD, replicates=("a",) * 100), "replicates must be numbers, got str 'a'"),
        (replace(GOOD, replicates=None), "must be tuples"),
    ],
)
def test_what_is_no_score_is_told_also_inside_of_domains(answer: Any, words: str) -> None:
    for task, ask in ((Task(), scored), (Domains(served={"a": Task(answer)}), lambda task, _: task.evaluate(None))):
        with pytest.raises(
            TaskError, match=rf"^task(\.served\.a)?: {__name__}\.Task\.evaluate must return a Score .*{words}"
        ) as caught:
            ask(task, answer)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROWS], "got list"),
        ({}, "no "),
        ({"a": []}, "domain a has no batch"),
        ({"a": [torch.zeros(1, 0, dtype=torch.int64)]}, "a batch without tokens"),
        ({"a": ROWS}, "not a list of batches"),
        ({"a": [[1, 2]]}, "for a batch of domain a"),
        ({"a": [ROWS.float()]}, r"Tensor torch.float32 \[2, 4\]"),
        ({"a": [ROWS[0]]}, r"Tensor torch.int64 \[4\]"),
        ({"a": [ROWS + 1000]}, "token ids outside of 0 to 127"),
        ({}, "got no domain"),
        ({"b": [ROWS], "a": [ROWS, ROWS[:, :0]]}, "domain a has a batch without tokens"),
        ({"a": [ROWS[:0]]}, "domain a has a batch without tokens"),
    ],
)
def test_what_is_no_calibration_row_is_told(rows: Any, words: str, tiny: Callable[[str], LoadedModel]) -> None:
    with pytest.raises(TaskError, match=rf"Task\.calibration must return token batches .*{words}"):
        calibrated(Task(rows=rows), tiny("llama"))


def test_what_its_code_raises_is_told_with_its_line_and_memory_is_not() -> None:
    line = r"Task\.evaluate raised KeyError: 'x' \(test_answers\.py, line \d+\)"
    with pytest.raises(TaskError, match=line), told(Task(), "evaluate"):
        raise KeyError("x")
    with pytest.raises(RuntimeError), told(Task(), "evaluate"):
        raise RuntimeError("CUDA out of memory")


def test_the_standard_error_is_that_of_the_replicates_where_there_are_some() -> None:
    replicates = np.linspace(0.3, 0.5, 100)
    found = scored(Task(), replace(GOOD, accuracy=0.4, replicates=replicates))  # type: ignore[arg-type]
    assert found.stderr == pytest.approx(replicates.std(ddof=1))
    assert found.replicates == tuple(replicates.tolist())
    same = scored(Task(), replace(GOOD, replicates=tuple(replicates)))  # also where it is the mean of its examples
    assert same.stderr == found.stderr


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float32(0.5)])
def test_a_scalar_of_torch_or_numpy_is_a_number(value: Any) -> None:
    assert scored(Task(), replace(GOOD, accuracy=value)).accuracy == 0.5


class Leaving:
    """A task of a user's own that ends the program."""

    head = "causal_lm"

    def evaluate(self, _model: object) -> Score:
        """Ends it as if all were well."""
        sys.exit(0)


def test_a_task_that_ends_the_program_is_told() -> None:
    task: Any = Leaving()
    with pytest.raises(TaskError, match=r"Leaving\.evaluate raised SystemExit: 0"), told(task, "evaluate"):
        task.evaluate(None)


@pytest.mark.parametrize("name", ["accuracy", "throughput", "peak_memory"])
def test_what_is_measured_elsewhere_is_no_metric_of_a_task(name: str) -> None:
    task: Any = Leaving()
    with pytest.raises(TaskError, match=f"its extra holds '{name}', which is measured or told elsewhere"):
        scored(task, Score(0.5, 0.1, (0.5, 0.5), extra={name: 3.0}))
