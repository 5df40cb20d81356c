"""Classes are matched by name and number, metrics are scikit-learn's, and padding changes no answer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.errors import DataError
from objectives.models.batch import Batch
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.classification import Classification
from objectives.tasks.confusion import macro_f1, mcc, measured
from objectives.tasks.data.rows import Row
from objectives.tasks.labels import places_of, require_classes
from tests.objectives.conftest import Tiny
from tests.objectives.tasks.test_choice import write

WORDS = ["the cat", "a dog sat on it", "no", "why not?", "it is a long line, longer than the others", "x y z"]
ROWS = [{"text": f"{word} {number}", "other": word[::-1], "label": number % 3} for number, word in enumerate(WORDS * 4)]
HELD = [{"text": f"calibrates {number}", "other": "me", "label": number % 3} for number in range(5)]


@pytest.fixture
def classifier(tiny: Tiny) -> TorchRunner:
    model = tiny("bert, classifier").copy()
    model.module.float()
    return TorchRunner(model)


def task(folder: Path, rows: list[dict[str, Any]] = ROWS, **settings: Any) -> Classification:
    return Classification(
        data=write(folder / "a.jsonl", rows), calibration=write(folder / "b.jsonl", HELD), batch_rows=5, **settings
    )  # fmt: skip


def plain(runner: TorchRunner, text: str, other: str | None = None) -> int:
    """One row at a time, as a user of transformers would ask."""
    read = runner.tokenizer(*([text] if other is None else [text, other]), return_tensors="pt")
    with torch.inference_mode():
        return int(runner.module(**read).logits.argmax())


@pytest.mark.parametrize("pair", [None, "other"])
def test_answers_are_those_of_one_row_at_a_time(classifier: TorchRunner, tmp_path: Path, pair: str | None) -> None:
    score = task(tmp_path, text_b=pair).evaluate(classifier)
    wanted = [float(plain(classifier, row["text"], row.get(pair or "")) == row["label"]) for row in ROWS]
    assert list(score.examples) == wanted
    assert 0 < score.accuracy < 1
    assert score.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(("metric", "theirs"), [
    ("macro_f1", lambda right, found: sklearn.metrics.f1_score(right, found, average="macro", zero_division=0)),
    ("mcc", lambda right, found: max(0.0, sklearn.metrics.matthews_corrcoef(right, found))),
])  # fmt: skip
def test_metrics_of_the_corpus_are_those_of_scikit_learn(
    classifier: TorchRunner, tmp_path: Path, metric: str, theirs: Any
) -> None:
    score = task(tmp_path, metric=metric).evaluate(classifier)
    found = [plain(classifier, row["text"]) for row in ROWS]
    assert score.accuracy == pytest.approx(theirs([row["label"] for row in ROWS], found), abs=1e-12)
    assert len(score.replicates) == 1000
    assert 0 < score.stderr < 0.5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_metrics_are_those_of_scikit_learn_whatever_is_missing(pairs: list[tuple[int, int]]) -> None:
    right, found = [one for one, _ in pairs], [other for _, other in pairs]
    matrix = np.zeros((4, 4))
    for cell in pairs:
        matrix[cell] += 1
    assert macro_f1(matrix) == pytest.approx(
        sklearn.metrics.f1_score(right, found, average="macro", zero_division=0), abs=1e-12
    )
    if len(set(right)) > 1 and len(set(found)) > 1:
        assert mcc(matrix) == pytest.approx(sklearn.metrics.matthews_corrcoef(right, found), abs=1e-9)
    else:
        assert mcc(matrix) == 0.0


def test_replicates_are_the_metric_of_resampled_rows() -> None:
    generator = np.random.default_rng(0)
    right, found = generator.integers(0, 3, 50).tolist(), generator.integers(0, 3, 50).tolist()
    from objectives.tasks.resampling import replicates_by

    def theirs(places: Any) -> float:
        some = np.asarray(right)[places], np.asarray(found)[places]
        return cast("float", sklearn.metrics.f1_score(*some, average="macro", zero_division=0))

    assert measured("macro_f1", right, found, 3).replicates[:20] == pytest.approx(replicates_by(theirs, 50, 100)[:20])


def test_classes_are_known_by_name_by_number_and_by_names_of_ones_own(classifier: TorchRunner, tmp_path: Path) -> None:
    wanted = task(tmp_path).evaluate(classifier).examples
    named = [{**row, "label": f"LABEL_{row['label']}"} for row in ROWS]
    assert task(tmp_path, named).evaluate(classifier).examples == wanted
    own = [{**row, "label": ("bad", "fair", "good")[row["label"]]} for row in ROWS]
    assert task(tmp_path, own, labels=("bad", "fair", "good")).evaluate(classifier).examples == wanted
    digits = [{**row, "label": str(row["label"])} for row in ROWS]
    assert task(tmp_path, digits).evaluate(classifier).examples == wanted


@pytest.mark.parametrize(
    ("label", "settings", "words"),
    [
        ("LABEL_7", {}, r"task\.label: 1 of 25 rows are wrong: .*a\.jsonl, line 25 has the label 'LABEL_7'.*LABEL_0, "),
        (3, {}, "has the label '3'"),
        (1.5, {}, "has the label '1.5'"),
        (0, {"labels": ("a", "b")}, r"task\.labels: 2 names, the model has 3 classes: LABEL_0, LABEL_1, LABEL_2"),
    ],
)
def test_labels_that_the_model_does_not_know_are_told_with_their_line(
    classifier: TorchRunner, tmp_path: Path, label: Any, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        task(tmp_path, [*ROWS, {**ROWS[0], "text": "new", "label": label}], **settings).excerpts(classifier.model)


def test_long_rows_are_cut_and_counted(classifier: TorchRunner, tmp_path: Path) -> None:
    remarks = task(tmp_path, tokens=12).excerpts(classifier.model).remarks
    longer = sum(len(row["text"]) > 12 for row in ROWS)
    assert remarks == (f"task.tokens: {longer} of {len(ROWS)} rows are cut at their end to 12 tokens",)
    assert task(tmp_path).excerpts(classifier.model).remarks == ()


def test_calibration_rows_have_one_length_and_their_token_types(
    classifier: TorchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier.tokenizer, "model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
    rows = task(tmp_path, text_b="other").calibration(classifier.model)["task"]
    assert sum(map(len, rows)) == len(HELD)
    assert all(isinstance(batch, Batch) and batch.types is not None for batch in rows)
    assert {int(batch.types.sum()) for batch in rows} != {0}  # type: ignore[union-attr]


def test_a_model_that_answers_no_number_gives_no_accuracy(classifier: TorchRunner, tmp_path: Path) -> None:
    with torch.inference_mode():
        classifier.module.classifier.weight.fill_(math.nan)
    for metric in ("accuracy", "macro_f1"):
        assert math.isnan(task(tmp_path, metric=metric).evaluate(classifier).accuracy)


@pytest.mark.parametrize(("metric", "chance"), [("accuracy", 0.9), ("macro_f1", 2 * 0.9 / 1.9 / 2), ("mcc", 0.0)])
def test_guessing_is_told_by_the_metric(classifier: TorchRunner, tmp_path: Path, metric: str, chance: float) -> None:
    """A metric at its own level of guessing means nothing, at that of another metric it may mean much."""
    rows = [{"text": f"{WORDS[0]} {number}", "label": int(number % 10 == 0)} for number in range(40)]
    score = task(tmp_path, rows, metric=metric).evaluate(classifier)
    assert score.chance == pytest.approx(chance)


@pytest.mark.parametrize(
    ("classes", "values", "places"),
    [
        (("True", "False", "maybe"), [True, False, "True", "maybe"], [0, 1, 0, 2]),
        (("bad", "good"), [True, "false", "TRUE", 1.0, "1.0", "0"], [1, 0, 1, 1, 1, 0]),
        (("1", "2", "3"), [0, 1, 2], [0, 1, 2]),  # all are numbers, not all are names
        (("1", "2", "3"), [1.0, 2.0, 3.0], [0, 1, 2]),  # all are names
        (("1", "2", "3"), ["1", 2], [0, 1]),
        (("True", "False"), ["true", "TRUE", "false"], [0, 0, 1]),
        (("A", "a", "b"), ["a", "A", "B"], [1, 0, 2]),
        (("Bad ", "Good"), ["good", "BAD"], [1, 0]),
    ],
)
def test_a_label_is_the_same_class_in_every_kind_of_file(
    classes: tuple[str, ...], values: list[Any], places: list[int]
) -> None:
    rows = [Row({"label": value}, "a", number) for number, value in enumerate(values)]
    assert places_of(rows, values, classes) == places
    for value in (math.nan, math.inf, "-1", "1.5", "99999999999"):
        with pytest.raises(DataError, match="has the label"):
            places_of(rows[:1], [value], classes)


def test_numbers_that_the_names_of_other_classes_hold_are_refused() -> None:
    stars = ("1 star", "2 stars", "3 stars")
    rows = [Row({"label": value}, "a", value) for value in (1, 2)]
    with pytest.raises(
        DataError, match=r"the label 1 is, counted from 0, the class '2 stars', and by its name '1 star'"
    ):
        places_of(rows, [1, 2], stars)
    assert places_of(rows, [0, 1], stars) == [0, 1]  # 0 says where they begin
    assert places_of(rows, [1, 2], ("1", "2", "3")) == [0, 1]
    assert places_of(rows, [1, 2], ("LABEL_0", "LABEL_1", "LABEL_2")) == [1, 2]


def test_labels_of_two_kinds_are_wrong_where_they_are_fewer() -> None:
    values = ["good", "bad", 1]
    rows = [Row({"label": value}, "a", number) for number, value in enumerate(values, start=1)]
    with pytest.raises(
        DataError, match=r"task\.label: 1 of 3 rows are wrong: a, line 3 has the label '1'; the model knows"
    ):
        places_of(rows, values, ("bad", "good"))


def test_a_class_is_named_once() -> None:
    with pytest.raises(DataError, match=r"task\.labels: 'ar' is named 2 times; each class has a name of its own"):
        require_classes(("LABEL_0", "LABEL_1", "LABEL_2"), ("ar", "da", "ar"))
