"""Makes token ids of prompts and of answers, for models that write. The module is free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from objectives.errors import TaskError
from objectives.tasks.batching import prompt_ids
from objectives.tasks.partial_scores import Reader, require_rows
from objectives.types import Head


def has_chat_template(tokenizer: Any) -> bool:
    """Return whether the tokenizer knows how a conversation is written."""
    return bool(getattr(tokenizer, "chat_template", None))


def prompt_tokens(model: Reader, head: Head, text: str, chat: bool) -> list[int]:
    """Return a prompt's ids: what a decoder writes on after, or the source that an encoder-decoder reads.

    ``chat``: the text is what a user says in the chat template. Raises Unsupported for a token without a row, TaskError
    where the template refuses the text.
    """
    tokenizer = model.tokenizer
    ids: list[int]
    if chat:
        said: Sequence[Mapping[str, str]] = [{"role": "user", "content": text}]
        try:
            made = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise TaskError(
                f"task.chat: the tokenizer's chat template refuses what a user says alone ({error}); task.chat=false "
                "gives the model the prompt as it is"
            ) from error
        ids = tokenizer(made, add_special_tokens=False, verbose=False)["input_ids"]
    elif head == "seq2seq":
        ids = tokenizer(text, verbose=False)["input_ids"]
    else:
        ids = prompt_ids(tokenizer, text)
    require_rows(model, max(ids, default=0))
    return ids


def shortened(model: Reader, head: Head, ids: Sequence[int], most: int) -> Sequence[int]:
    """Return a prompt in at most ``most`` tokens: a decoder's is cut at its beginning, a source before its end."""
    if len(ids) <= most:
        return ids
    if head != "seq2seq":
        return ids[-most:]
    end = [token for token in ids[-1:] if token in model.tokenizer.all_special_ids]
    return [*ids[: most - len(end)], *end]


def cut_remarks(key: str, lengths: Sequence[int], most: int, what: str) -> tuple[str, ...]:
    """Return a line that says how many of these lengths are beyond ``most`` tokens; none where none is.

    ``key``: the setting to blame; ``what``: what is done, as ``prompts are cut at their end``.
    """
    cut = sum(length > most for length in lengths)
    return (f"{key}: {cut} of {len(lengths)} {what} to {most} tokens",) if cut else ()


def answer_tokens(model: Reader, head: Head, text: str) -> list[int]:
    """Return an answer's ids: those that stand after a decoder's prompt, or all that an encoder-decoder is to write."""
    if head != "seq2seq":
        ids = plain_tokens(model, text)
    else:
        ids = model.tokenizer(text_target=text, verbose=False)["input_ids"]
    require_rows(model, max(ids, default=0))
    return ids


def plain_tokens(model: Reader, text: str) -> list[int]:
    """Return the ids of a text without special tokens."""
    ids: list[int] = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
