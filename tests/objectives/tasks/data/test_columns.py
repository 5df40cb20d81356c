"""A column or a template gives a text for every row; whatever does not fit names the setting and what there is."""

from __future__ import annotations

import pytest

from objectives.errors import DataError
from objectives.tasks.data.columns import numbers_of, texts_of, values_of
from objectives.tasks.data.rows import Row

ROWS = [
    Row({"question": "who?", "answer": ["a", "b"]}, "a.jsonl", 1),
    Row({"question": "why?", "answer": []}, "a.jsonl", 2),
]


def test_a_column_gives_its_values() -> None:
    assert texts_of(ROWS, "task.text", "question") == ["who?", "why?"]
    assert values_of(ROWS[:1], "task.answer", "answer") == [["a", "b"]]


def test_a_template_sees_all_columns_and_keeps_its_last_newline() -> None:
    made = texts_of(ROWS, "task.text", "text", "Q: {{question}} {{answer | length}}\nA:\n")
    assert made == ["Q: who? 2\nA:\n", "Q: why? 0\nA:\n"]


def test_loops_of_a_template_are_counted_by_row() -> None:
    rows = [Row({"turns": [["a", "b"], ["c"]]}, "a.jsonl", number) for number in range(9000)]
    template = "{% for turn in turns %}{{ loop.index }}/{{ loop.length }}{% for word in turn %} {{word}}{% endfor %};"
    template += "{% endfor %}"
    assert set(texts_of(rows, "task.text", "text", template)) == {"1/2 a b;2/2 c;"}


def test_columns_that_no_comma_divides_are_said_to_need_one() -> None:
    rows = [Row({"text;label": "great;1"}, "a.csv", 2)]
    with pytest.raises(DataError, match=r"it has text;label; columns are divided by ';' here, a csv by commas"):
        texts_of(rows, "task.text", "text")


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError) as caught:
        texts_of(ROWS, "task.text", "questions")
    assert str(caught.value) == (
        "task.text: a.jsonl has no column 'questions', it has question, answer; task.text=question"
    )


def test_rows_without_a_value_or_with_another_kind_are_wrong() -> None:
    rows = [*ROWS, Row({"question": ""}, "b.jsonl", 7), Row({"question": None}, "b.jsonl", 8)]
    with pytest.raises(
        DataError, match=r"task\.text: 2 of 4 rows are wrong: b\.jsonl, line 7 has no 'question'; b\.jsonl"
    ):
        texts_of(rows, "task.text", "question")
    with pytest.raises(DataError, match=r"line 1 has the list \['a', 'b'\] for 'answer', not a text"):
        texts_of(ROWS[:1], "task.text", "answer")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{question", "is no template"),
        ("{{nothing}}", r"does not fit the template \('nothing' is undefined\).*\(its columns: question, answer\)"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "loops take more than 10000"),
        ("{% for a in question * 6000 %}{% endfor %}", "loops take more than 10000 steps"),
        ("{{ question * 10 ** 9 }}", "a text 1000000000 times"),
        ("{{ 9 ** 999999999 }}", "an exponent of"),
        ("{{ question[9:] }}", "2 of 2 rows are wrong: a.jsonl, line 1 gives an empty text.*the template is"),
        ("{{question.__class__.__mro__}}", "does not fit the template .*unsafe"),
        ("{% for i in range(10**9) %}{% endfor %}", "does not fit the template .*[Rr]ange too big"),
        ("{{answer.append('c')}}", "does not fit the template .*not safely callable|unsafe"),
    ],
)
def test_a_template_that_does_not_fit_or_reaches_further_is_refused(template: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        texts_of(ROWS, "task.text", "text", template)
    assert str(caught.value).startswith("task.doc_to_text: ")


def test_numbers_may_be_written_as_texts_and_others_are_wrong() -> None:
    rows = [Row({"score": value}, "a.csv", line) for line, value in enumerate(["1.5", 2, "-3e2", True], start=2)]
    assert numbers_of(rows, "task.label", "score") == [1.5, 2.0, -300.0, 1.0]
    wrong = [*rows, Row({"score": "high"}, "a.csv", 6), Row({"score": "inf"}, "a.csv", 7)]
    said = r"2 of 6 rows are wrong: a\.csv, line 6 has 'high' for 'score', not a number; a\.csv, line 7 has 'inf'"
    with pytest.raises(DataError, match=rf"task\.label: {said}"):
        numbers_of(wrong, "task.label", "score")
