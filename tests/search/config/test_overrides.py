"""Words of the command line mean what a person writes."""

from __future__ import annotations

import pytest

from search.config.overrides import parsed, readable


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (r'task.doc_to_text="Q: {{question}}\nA:"', "Q: {{question}}\nA:"),
        (r'task.stop=["\n","x\ty"]', ["\n", "x\ty"]),
        (r"task.doc_to_text='Q:\nA:'", r"Q:\nA:"),
        (r'task.doc_to_text="\\nabla"', r"\\nabla"),
        (r'task.doc_to_text="say \"a\nb\""', 'say "a\nb"'),
        (r"model.path=a\nb", r"a\nb"),
    ],
)
def test_between_double_quotes_an_escape_is_a_new_line_or_a_tab(word: str, value: object) -> None:
    (read,) = readable([word])
    found = parsed(read)
    assert found is not None
    assert found.value() == value
