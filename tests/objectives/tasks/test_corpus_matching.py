"""BLEU and chrF are those of sacrebleu, of a corpus, of a resample and of one answer, in several scripts."""

from __future__ import annotations

import math
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import sacrebleu

from objectives.errors import TaskError
from objectives.tasks.corpus_matching import CorpusMetric, bleu, chrf, metric_of, packages_of
from objectives.tasks.generation import Generation
from objectives.tasks.paired import is_resampled, paired_difference
from objectives.tasks.resampling import replicates_by

ENGLISH = [
    ("The cat sat on the mat.", ["A cat is sitting on the mat.", "The cat sat upon the mat!"]),
    ("He's 3.5 metres tall, isn't he?", ["He is 3.5 metres tall."]),
    ("", ["Nothing was written here."]),
    ("one", ["one", "two words", "three whole words"]),
    ("  spaces  everywhere \n", ["spaces everywhere", ""]),
    ("no overlap", ["at all"]),
    ("the the the the the", ["the cat the"]),
    ("A much longer answer than anybody wanted, with many words", ["A short one"]),
]
CHINESE = [
    ("今天天气很好。", ["今天天气不好。", "今天的天气很好。"]),
    ("我喜欢 Python 3", ["我很喜欢 Python 3"]),
    ("没有", ["完全不同的句子"]),
    ("", ["空的"]),
]
SETS = {"english": ENGLISH, "chinese": CHINESE, "both": [*ENGLISH, *CHINESE]}
Pairs = list[tuple[str, list[str]]]


def of(name: str, tokenize: Any = "13a") -> CorpusMetric:
    found = metric_of(name, tokenize)
    assert isinstance(found, CorpusMetric)
    return found


def theirs(name: str, pairs: Pairs, tokenize: str = "13a") -> float:
    """The corpus score of sacrebleu, in [0, 1]; it takes the n-th references of all texts as one list."""
    most = max(len(accepted) for _, accepted in pairs)
    references = [[accepted[at] if at < len(accepted) else None for _, accepted in pairs] for at in range(most)]
    answers = [answer for answer, _ in pairs]
    if name == "chrf":
        return sacrebleu.corpus_chrf(answers, references).score / 100
    return sacrebleu.corpus_bleu(answers, references, tokenize=tokenize).score / 100


@pytest.mark.parametrize("pairs", SETS.values(), ids=SETS)
@pytest.mark.parametrize("tokenize", ["13a", "zh", "intl", "char"])
def test_bleu_is_that_of_sacrebleu(pairs: Pairs, tokenize: str) -> None:
    score = of("bleu", tokenize).score(*zip(*pairs))
    assert score.accuracy == pytest.approx(theirs("bleu", pairs, tokenize), abs=1e-9)
    alone = [
        sacrebleu.sentence_bleu(answer, accepted, tokenize=tokenize, use_effective_order=True).score / 100
        for answer, accepted in pairs
    ]
    assert score.examples == pytest.approx(alone, abs=1e-9)
    assert max(alone) > 0


@pytest.mark.parametrize("pairs", SETS.values(), ids=SETS)
def test_chrf_is_that_of_sacrebleu(pairs: Pairs) -> None:
    score = of("chrf").score(*zip(*pairs))
    assert score.accuracy == pytest.approx(theirs("chrf", pairs), abs=1e-9)
    alone = [sacrebleu.sentence_chrf(answer, accepted).score / 100 for answer, accepted in pairs]
    assert score.examples == pytest.approx(alone, abs=1e-9)


@pytest.mark.parametrize(
    "pairs",
    [
        [("", ["something"])],
        [("one", ["one"])],
        [("a b", ["a c"])],
        [("a b c", ["a b c"])],
        [("x", [""])],
        ENGLISH[3:6],
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_corpus_of_few_words_is_no_exception(name: str, pairs: Pairs) -> None:
    """Orders that no text is long enough for, orders without a match, no match at all."""
    assert of(name).score(*zip(*pairs)).accuracy == pytest.approx(theirs(name, pairs), abs=1e-9)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_replicates_are_the_scores_of_sacrebleu_over_the_texts_that_are_drawn(name: str) -> None:
    pairs = SETS["both"]
    found = of(name).score(*zip(*pairs))
    wanted = replicates_by(lambda places: theirs(name, [pairs[place] for place in places]), len(pairs))
    assert found.replicates == pytest.approx(wanted, abs=1e-9)
    assert found.stderr == pytest.approx(np.std(wanted, ddof=1))
    assert is_resampled(found)


def test_the_arithmetic_is_that_of_sacrebleu_for_any_counts() -> None:
    drawn = np.random.default_rng(0)
    written = np.sort(drawn.integers(0, 6, (500, 4)), axis=1)[:, ::-1]
    matched = np.minimum(drawn.integers(0, 6, (500, 4)), written)
    lengths = np.stack([written[:, 0], drawn.integers(0, 9, 500)], axis=1)
    sums = np.concatenate([lengths, matched, written], axis=1).astype(float)
    counted = [sacrebleu.BLEU()._compute_score_from_stats(row.tolist()).score / 100 for row in sums]
    assert bleu(sums) == pytest.approx(counted, abs=1e-9)
    assert 0 < np.count_nonzero(counted) < 500
    counts = drawn.integers(0, 9, (500, 6, 3))
    counts[..., 2] = counts.min(axis=-1)
    counted = [sacrebleu.CHRF()._compute_f_score(row.tolist()) / 100 for row in counts.reshape(500, 18)]
    assert chrf(counts.reshape(500, 18).astype(float)) == pytest.approx(counted, abs=1e-9)


def test_two_models_are_compared_by_the_same_resamples() -> None:
    answers, accepted = zip(*ENGLISH)
    found, base = of("bleu").score([*answers[:-1], "A short"], accepted), of("bleu").score(answers, accepted)
    difference = paired_difference(found, base)
    assert difference is not None
    assert difference.value == pytest.approx(found.accuracy - base.accuracy)
    assert difference.low < difference.value < difference.high


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_an_answer_that_is_no_number_makes_the_score_none(name: str) -> None:
    score = of(name).score([None, "one"], [["a"], ["one"]])
    assert math.isnan(score.accuracy)
    assert [math.isnan(each) for each in score.examples] == [True, False]
    assert score.replicates == ()


def test_a_text_without_accepted_answers_matches_nothing() -> None:
    assert of("bleu").score(["a b c d", "a"], [["a b c d"], []]).accuracy < 1
    assert of("chrf").score(["a b c d", "a"], [["a b c d"], []]).examples == (1.0, 0.0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(TaskError, match=r"bleu needs sacrebleu: pip install 'paretune\[tasks\]'"):
        metric_of("bleu", "13a")
    assert metric_of("f1", "13a").is_mean


@pytest.mark.parametrize(
    ("name", "packages"),
    [("bleu", ("sacrebleu",)), ("chrf", ("sacrebleu",)), ("rougeL", ("rouge-score",)), ("f1", ()), ("exact_match", ())],
)
def test_a_metric_names_the_packages_that_compute_it(name: str, packages: tuple[str, ...]) -> None:
    assert packages_of(name) == packages
    task = Generation(data="a.jsonl", metric=name)  # type: ignore[arg-type]
    assert task.packages == ("tokenizers", *packages)
    assert all(version(package) for package in task.packages)
