"""What every kind of task with files promises: names and numbers in any order, rows that calibrate apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from objectives.errors import DataError
from objectives.evaluation.checkup import EXAMPLES, _first
from objectives.models import LoadedModel
from objectives.protocols.task import PartiallyScorable
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.answers import calibrated, scored
from objectives.tasks.overlap import require_disjoint
from objectives.tasks.partial_scores import merged
from objectives.tasks.progress import SoFar, followed
from objectives.types import Score
from tests.objectives.recipes import CONF, built, choices

Tiny = Callable[[str], LoadedModel]


def needs(choice: str) -> list[str]:
    """The settings that somebody has to give."""
    return [name for name, value in yaml.safe_load((CONF / "task" / f"{choice}.yaml").read_text()).items()
            if value == "???"]  # fmt: skip


KINDS = [choice for choice in choices("task") if needs(choice) == ["data"]]
MORE = {
    "choice": [{"metric": "accuracy_norm"}], "classification": [{"metric": "macro_f1"}],
    "generation": [{"metric": "bleu"}, {"metric": "chrf"}], "information_retrieval": [{"metric": "ndcg@10"}],
    "similarity": [{"metric": "pearson"}], "text": [{"metric": "inverse_perplexity"}],
}  # fmt: skip
"""Further settings, by kind."""
TRIED = [(kind, more) for kind in KINDS for more in ({}, *MORE.get(kind, []))]
SHORT = {"new_tokens": 4, "tokens": 40, "shots": 0, "stride": 8, "answer_tokens": 4, "calibration_tokens": 8,
         "batch_rows": 4}  # fmt: skip
WORDS = ["red car", "a dog barks", "the sea", "snow", "some ice", "two birds", "a long walk", "x"]


def row(place: int, word: str) -> dict[str, Any]:
    """A row with a column for every kind."""
    return {
        "text": f"{word} {place}", "text_b": f"{word[::-1]} and more", "query": word, "label": place % 3,
        "target": [word, f"{word} it is"], "choices": [word, "another", "none"], "answer": word,
        "head": word, "relation": "likes", "tail": f"{word} too", "words": word.split(),
        "tags": [place % 5] * len(word.split()), "question": f"which {place}?", "context": f"It was {word} there.",
    }  # fmt: skip


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(file)


@pytest.fixture(params=TRIED, ids=lambda tried: " ".join([tried[0], *tried[1].values()]))
def task(request: Any, tmp_path: Path) -> Any:
    kind, more = request.param
    given = yaml.safe_load((CONF / "task" / f"{kind}.yaml").read_text())
    short = {name: value for name, value in SHORT.items() if name in given}
    files = {
        "data": write(tmp_path / "a.jsonl", [row(place, word) for place, word in enumerate(WORDS)]),
        "calibration": write(tmp_path / "b.jsonl", [row(90, "held back"), row(91, "not seen")]),
    }
    return built("task", kind, **files, **short, **more)


@pytest.fixture
def runner(task: Any, tiny: Tiny) -> TorchRunner:
    model = tiny({"causal_lm": "llama", "encoder": "bert", "seq2seq": "t5"}.get(task.head, f"bert, {task.head}")).copy()
    model.module.float()
    return TorchRunner(model)


def by_name(score: Score) -> dict[str, float]:
    return dict(zip(score.ids, score.examples))


def test_a_score_has_a_name_for_every_example_and_is_the_same_again(task: Any, runner: TorchRunner) -> None:
    score = scored(task, task.evaluate(runner))
    assert len(set(score.ids)) == len(score.examples) >= len(WORDS)
    assert 0 <= score.accuracy <= 1
    assert score == scored(task, task.evaluate(runner))
    assert not score.replicates or len(score.replicates) == 1000


def test_examples_do_not_depend_on_the_order_in_which_they_are_scored(task: Any, runner: TorchRunner) -> None:
    assert isinstance(task, PartiallyScorable)
    whole = scored(task, task.evaluate(runner))
    order = list(range(len(whole.examples)))
    order = order[3:] + order[:3]
    parts = [scored(task, part) for part in task.parts(runner, order)]
    assert merged(parts).ids == tuple(whole.ids[index] for index in order)
    assert by_name(merged(parts)) == pytest.approx(by_name(whole), abs=1e-4)
    assert {part.chance for part in parts} == {whole.chance}
    if whole.replicates:
        assert len(parts) == 1
    else:
        assert merged(parts).accuracy == pytest.approx(whole.accuracy, abs=1e-5)


def test_scoring_tells_how_far_it_is_and_ends_with_all_done(
    task: Any, runner: TorchRunner, heard: list[SoFar | None]
) -> None:
    with followed():
        task.evaluate(runner)
    told = [far for far in heard if far is not None and far.total]
    assert len({far.total for far in told}) == 1
    assert [far.done for far in told] == sorted(far.done for far in told)
    assert told[-1].done == told[-1].total >= len(WORDS)
    assert len({far.done for far in told}) > 2, "the rows that run together are told one batch after the other"


def test_rows_calibrate_that_are_not_scored(task: Any, runner: TorchRunner) -> None:
    batches = calibrated(task, runner.model)
    assert sum(len(batch) for batch in batches["task"]) >= 1
    assert require_disjoint(task, runner.model) == "" or "are cut" in require_disjoint(task, runner.model)
    rows = task.excerpts(runner.model)
    assert len(rows.calibration) == 2
    assert {key for each in rows.calibration for key in each.keys}.isdisjoint(
        key for each in rows.scored for key in each.keys
    )


def test_a_model_that_went_mad_has_no_accuracy(task: Any, runner: TorchRunner) -> None:
    with torch.no_grad():
        for parameter in runner.module.parameters():
            parameter.fill_(math.nan)
    assert math.isnan(scored(task, task.evaluate(runner)).accuracy)


def test_a_file_without_the_columns_is_refused_before_a_model_is_needed(task: Any, tmp_path: Path) -> None:
    for name in ("c.jsonl", "d.jsonl"):
        write(tmp_path / name, [{"other": f"{name} {place}"} for place in range(3)])
    wrong = replace(task, data=str(tmp_path / "c.jsonl"), calibration_data=str(tmp_path / "d.jsonl"))
    with pytest.raises(DataError, match=r"task\.\w+: [cd]\.jsonl has no column '\w+', it has other"):
        wrong.require_documents()


def test_a_check_scores_as_many_examples_as_there_are(task: Any, runner: TorchRunner) -> None:
    few = replace(task, limit=2)
    assert len(few.evaluate(runner).examples) in (2, EXAMPLES)
    assert merged(_first(few, runner)).examples == few.evaluate(runner).examples
