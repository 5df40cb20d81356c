"""Ratings are those of their definitions, and of rouge-score; no script is without words."""

from __future__ import annotations

import sys

import pytest

from objectives.errors import TaskError
from objectives.tasks import matching
from objectives.tasks.matching import best, exact_match, quasi_exact_match, rate_of, word_f1


def test_case_articles_and_punctuation_do_not_count() -> None:
    assert quasi_exact_match("The  Cat, sat!", "a cat sat") == 1
    assert quasi_exact_match("the cat", "cats") == 0
    assert quasi_exact_match("", "the") == 1
    for one, other in (("", "A"), ("The", "an"), ("1.5", "15"), ("-5", "5"), ("C++", "C"), ("a", "A")):
        assert exact_match(one, other) == 0
        assert exact_match(f" {one}\n", one) == 1


@pytest.mark.parametrize(
    ("answer", "wanted", "rate"),
    [
        ("Denver Broncos", "the Denver Broncos", 1.0),
        ("in the city of Denver", "Denver", 0.4),  # 1 of 4 words, 1 of 1
        ("a b b c", "b b b", 2 * 2 / (3 + 3)),  # the article goes
        ("", "", 1.0),
        ("", "x", 0.0),
    ],
)
def test_f1_counts_shared_words(answer: str, wanted: str, rate: float) -> None:
    assert word_f1(answer, wanted) == pytest.approx(rate)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_that_of_rouge_score_on_english_and_not_0_on_chinese(name: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [("The cat sat on the mat.", "A cat is sitting on the mat"), ("no overlap", "at all"), ("x", "x")]
    for answer, wanted in pairs:
        theirs = RougeScorer([name]).score(wanted, answer)[name].fmeasure
        assert rate_of(name)(answer, wanted) == pytest.approx(theirs, abs=1e-6)
    assert RougeScorer([name]).score("今天天气很好", "今天天气不好")[name].fmeasure == 0
    expected = {"rouge1": 5 / 6, "rouge2": 3 / 5, "rougeL": 5 / 6}[name]
    assert rate_of(name)("今天天气很好", "今天天气不好") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GPT模型在2023年很好", ["gpt", *"模型在", "2023", *"年很好"]),
        ("iPhone15を買った。", ["iphone15", *"を買った"]),
        ("佐々木さんは〇番", [*"佐々木さんは〇番"]),
        ("ﾃｽﾄ123", [*"テスト", "123"]),
        ("한국어 문장은 GPT모델로", ["한국어", "문장은", "gpt모델로"]),
        ("\U00020bb7野家A", [*"\U00020bb7野家", "a"]),
        ("मेरी किताब", ["मेरी", "किताब"]),
        ("مَرْحَبًا بك", ["مَرْحَبًا", "بك"]),
        ("ฉันกิน 5", ["ฉั", "น", "กิ", "น", "5"]),
        ("naïve_word's Привет мир", ["naïve", "word", "s", "привет", "мир"]),
    ],
)
def test_words_are_those_between_spaces_but_for_scripts_without_any(text: str, words: list[str]) -> None:
    assert matching._Words().tokenize(text) == words


def test_rouge_of_mixed_text_counts_its_characters() -> None:
    assert rate_of("rougeL")("GPT模型在2023年很差", "GPT模型在2023年很好") == pytest.approx(7 / 8)


def test_chinese_answers_share_characters_and_punctuation_does_not_count() -> None:
    assert word_f1("北京市", "北京") == pytest.approx(4 / 5)
    assert word_f1("在GPT模型里", "GPT模型") == pytest.approx(2 * 3 / (5 + 3))
    assert quasi_exact_match("「北京」。", "北京") == 1
    assert quasi_exact_match("北京", "南京") == 0
    assert rate_of("rouge1")("मेरी किताब", "मेरा कुत्ता") == 0


def test_the_best_of_the_accepted_answers_counts() -> None:
    assert best(word_f1, "a red car", ["blue car", "red car"]) == 1
    assert best(word_f1, "a red car", []) == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    matching._rouge.cache_clear()
    with pytest.raises(TaskError, match=r"rouge1 needs rouge-score: pip install 'paretune\[tasks\]'"):
        rate_of("rouge1")
