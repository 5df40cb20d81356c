"""A column or a template gives a text for every row; whatever does not fit names the setting and what there is."""

from __future__ import annotations

import math

import pytest

from objectives.errors import DataError
from objectives.tasks.data.columns import accepted_of, list_of, numbers_of, rendered, texts_of, values_of
from objectives.tasks.data.rows import Row

ROWS = [
    Row({"question": "who?", "answer": ["a", "b"]}, "a.jsonl", 1),
    Row({"question": "why?", "answer": []}, "a.jsonl", 2),
]


def test_a_column_within_a_column_is_taken_out_by_a_template() -> None:
    rows = [Row({"meta": {"title": "a"}}, "a.jsonl", 1)]
    with pytest.raises(
        DataError, match=r"has no column 'meta\.title', it has meta; task\.doc_to_text='\"\{\{meta\.title"
    ):
        texts_of(rows, "task.text", "meta.title")
    assert texts_of(rows, "task.text", "text", "{{meta.title}}") == ["a"]
    with pytest.raises(DataError, match=r"has no column 'other', it has meta$"):
        texts_of(rows, "task.text", "other")


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


def test_a_table_without_a_header_is_said_to_need_one() -> None:
    rows = [Row({"paris": "berlin"}, "a.tsv", 2)]
    said = r"no column 'head', it has paris; the first line of a table is read as its header$"
    with pytest.raises(DataError, match=said):
        texts_of(rows, "task.column_head", "head")


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


DOUBLED = (
    "{{% set n = namespace(a='a') %}}{{% for i in range(40) %}}{{% set n.a = n.a {} n.a %}}{{% endfor %}}{{{{ n.a }}}}"
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{question", "is no template"),
        ("{{nothing}}", r"does not fit the template \('nothing' is undefined\).*\(its columns: question, answer\)"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "loops take more than 10000"),
        ("{% for a in question * 6000 %}{% endfor %}", "loops take more than 10000 steps"),
        ("{{ question * 10 ** 9 }}", r"a text or list of \d{10,}, at most 1000000 characters or items are made"),
        ("{{ question | center(3000000000) }}", "No filter named 'center'"),
        ("{{ question.center(3000000000) }}", "access to attribute 'center' of 'str' object is unsafe"),
        ("{{ '{:0900000000d}'.format(1) }}", "access to attribute 'format' of 'str' object is unsafe"),
        ("{{ '%0900000000d' % 1 }}", "texts are not formatted by %"),
        ("{{ question.upper }}", "upper is a method, called as upper\\(\\)"),
        ("{{ question ~ range }}", "safe_range is a method, called as"),
        ("{{ self }}", "self and loop are Jinja's own names"),
        ("{% for a in question %}{{ loop }}{% endfor %}", "self and loop are Jinja's own names"),
        (DOUBLED.format("~"), "a text or list of 1048576, at most"),
        (DOUBLED.format("+"), "a text or list of 1048576, at most"),
        ("{% set a = 'a' * 1000000 %}{{ a | replace('a', a) }}", "a text or list of 1000000000000, at most"),
        ("{% set a = 'a' * 1000000 %}{{ a.replace('a', a) }}", "a text or list of 1000000000000, at most"),
        ("{% set a = 'a' * 1000000 %}{{ a | join(a) }}", "a text or list of"),
        ("{% set a = 'a' * 1000000 %}{{ a.join(a) }}", "a text or list of"),
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


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ a ~ '-' ~ b }}", "x-1"),
        ("{{ a ~ none ~ b }}", "x1"),
        ("{{ a }} {{ nothing }}.", "x ."),
        ("{{ a | replace('x', 'yy') }}{{ a.replace('x', 'z') }}{{ 'xx' | replace('x', 'y', 1) }}", "yyzyx"),
        ("{{ [a, b] | join('+') }}{{ '-'.join([a, a]) }}", "x+1x-x"),
        ("{{ list | join(', ', attribute='k') }}", "1, 2"),
        ("{{ 7 % 4 }}{{ b + 1 }}{{ [a] + [a] }}", "32['x', 'x']"),
        ("{{ a | tojson }}", '"x"'),
        ("{{ [a, none] | join(',') }}{{ '-'.join([a, none]) }}", "x,x-"),
        ("{{ inner.items }}{{ inner['keys'] }}{{ inner.other }}", "123"),
        ("{{ row['a name'] }}{{ row['a-b'] }}{{ row.a }}", "45x"),
    ],
)
def test_what_a_template_of_rows_does_is_that_of_jinja(template: str, text: str) -> None:
    rows = [Row({"a": "x", "b": 1, "nothing": None, "list": [{"k": 1}, {"k": 2}],
                 "inner": {"items": 1, "keys": 2, "other": 3}, "a name": 4, "a-b": 5}, "a.jsonl", 1)]  # fmt: skip
    assert rendered(rows, "task.doc_to_text", template) == [text]


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("a", ("a",)),
        (7, ("7",)),
        (["a", None, " ", "b"], ("a", "b")),
        ([1.5], ("1.5",)),
        (3.0, ("3",)),
        ([2.0, 2.5], ("2.0", "2.5")),
        ([math.nan, 3.0], ("3",)),
        ('["a"]', ('["a"]',)),
    ],
)
def test_accepted_answers_are_texts_numbers_or_lists_of_them(value: object, answers: tuple[str, ...]) -> None:
    assert accepted_of([Row({"target": value}, "a.jsonl", 1)], "task.target", "target") == [answers]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"en": "a"}, r"has the answer \[\{'en': 'a'\}\]"), ([["a"]], r"has the answer \[\['a'\]\]"),
        ([""], "has no answer"), (True, r"has the answer \[True\]"), (math.nan, "has no 'target'"),
        ([], "has no answer"), (" ", "has no 'target'"), ("", "has no 'target'"), (None, "has no 'target'"),
    ],
)  # fmt: skip
def test_an_answer_of_nothing_or_of_another_kind_is_wrong(value: object, said: str) -> None:
    rows = [Row({"target": "a"}, "a.json", 1, "row"), Row({"target": value}, "a.json", 2, "row")]
    with pytest.raises(DataError, match=rf"task\.target: 1 of 2 rows are wrong: a\.json, row 2 {said}"):
        accepted_of(rows, "task.target", "target")
    with pytest.raises(
        DataError, match=r"task\.doc_to_target: 1 of 1 rows are wrong: a\.json, row 1 gives an empty text"
    ):
        accepted_of(rows[:1], "task.target", "target", "{{ target[1:] }}")


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        (["a"], ["a"]), (("a",), ["a"]), ('["a", "b"]', ["a", "b"]), ("['a', 'b']", ["a", "b"]),
        (" [1, null]", [1, None]), (r'["\ud83d\ude00 a", "c\/d"]', ["\U0001f600 a", "c/d"]), (r'["\ud83d"]', None),
        ("a b", None), ("[a, b", None), (7, None), ("[" * 5000, None),
    ],
)  # fmt: skip
def test_a_cell_may_hold_a_list_as_text(cell: object, found: object) -> None:
    assert list_of(cell) == found
