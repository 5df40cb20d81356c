"""All rows are tokenised at once, as each by itself would be; only those that are too long are tokenised again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.tasks.encoding import Encoded, encode, encode_words
from objectives.tasks.likelihood import Pair, pairs_of
from tests.objectives.conftest import Tiny

MOST = 9
texts = st.text("ab c\n", min_size=1, max_size=14)


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> LoadedModel:
    return tiny("bert")


class Counting:
    """A model whose tokenizer notes how many rows it is given at each call."""

    def __init__(self, model: LoadedModel) -> None:
        self._tokenizer, self.vocabulary, self.calls = model.tokenizer, model.vocabulary, list[int]()

    @property
    def tokenizer(self) -> Any:
        return self

    def __call__(self, rows: list[Any], *others: Any, **how: Any) -> Any:
        self.calls.append(len(rows))
        return self._tokenizer(rows, *others, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def alone(model: LoadedModel, *row: Any, **how: Any) -> Encoded:
    """By another way: one row at a time, with the cut that transformers makes."""
    read = model.tokenizer(*row, truncation="longest_first", max_length=MOST, **how)
    words = read.word_ids() if how else ()
    return Encoded(
        read["input_ids"], read.get("token_type_ids"), len(model.tokenizer(*row, **how)["input_ids"]), words=words
    )


@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_texts_and_pairs_are_those_of_one_row_at_a_time(model: LoadedModel, rows: list[tuple[str, str]]) -> None:
    first, second = map(list, zip(*rows))
    assert encode(model, first, None, MOST) == [alone(model, text) for text in first]
    assert encode(model, first, second, MOST) == [alone(model, *row) for row in rows]


@given(rows=st.lists(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6), min_size=1, max_size=4))
def test_words_are_those_of_one_row_at_a_time(model: LoadedModel, rows: list[list[str]]) -> None:
    assert encode_words(model, rows, MOST) == [alone(model, row, is_split_into_words=True) for row in rows]


def test_only_rows_that_are_too_long_are_tokenised_again(model: LoadedModel) -> None:
    counting = Counting(model)
    assert [row.is_cut for row in encode(counting, ["a", "a" * 30, "b"], None, MOST)] == [False, True, False]
    assert counting.calls == [3, 1]
    encode(counting, ["a", "b"], None, MOST)
    assert counting.calls == [3, 1, 2]


def test_a_token_that_the_model_does_not_embed_is_refused_only_where_it_is_read(model: LoadedModel) -> None:
    small = Counting(model)
    small.vocabulary = model.tokenizer.convert_tokens_to_ids("y")
    assert len(encode(small, ["a" * 30 + "z"], None, MOST)) == 1
    with pytest.raises(Unsupported, match="a text holds the token 'z'"):
        encode(small, ["z"], None, MOST)


def pair(model: LoadedModel, prompt: str, continuation: str) -> Pair:
    """By another way: as lm-evaluation-harness does it, one pair at a time."""
    spaces = len(prompt) - len(prompt.rstrip(" "))
    start, rest = (prompt[:-spaces], prompt[-spaces:] + continuation) if spaces else (prompt, continuation)
    before, whole = (model.tokenizer(text)["input_ids"] for text in (start, start + rest))
    return whole[: len(before)], whole[len(before) :]


@given(asked=st.lists(st.tuples(texts.filter(str.strip), texts), min_size=1, max_size=6))
def test_prompts_and_continuations_are_those_of_one_pair_at_a_time(tiny: Tiny, asked: list[tuple[str, str]]) -> None:
    model = tiny("llama")
    assert pairs_of(model, asked) == [pair(model, *each) for each in asked]


def test_a_prompt_is_tokenised_by_itself_once_for_all_its_choices(tiny: Tiny) -> None:
    counting = Counting(tiny("llama"))
    pairs_of(counting, [("a prompt ", choice) for choice in "abcd"] + [("a prompt", "e"), ("another", "f")])
    assert counting.calls == [2, 6]


def test_a_continuation_of_nothing_stands_after_the_start_token(tiny: Tiny) -> None:
    ((before, after),) = pairs_of(tiny("llama"), [("", "ab")])
    assert (len(before), len(after)) == (1, 2)
