"""Scores models by other code than ours: one row at a time, no padding, no batches, the metrics of other packages.

Only a runner's own passes are used (``encode``, ``logits``, ``prefill``, ``step``), and files are read with the
standard library. What is slow and plain here is what the tasks must agree with.
"""

from __future__ import annotations

import csv
import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

Row = dict[str, Any]


def rows_of(file: Path) -> list[Row]:
    """Read a jsonl, csv or tsv file."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ","))


@torch.inference_mode()
def encoded(runner: Any, *texts: str, most: int = 512) -> torch.Tensor:
    """Ask an encoder for the answer to one text or pair."""
    read = runner.tokenizer(*texts, return_tensors="pt", truncation="longest_first", max_length=most)
    types = read.get("token_type_ids") if runner.head != "encoder" else None
    return runner.encode(read["input_ids"], None, types)[0].float()  # type: ignore[no-any-return]


def classes(runner: Any, rows: Sequence[Row], text: str = "text") -> list[str]:
    """Return the name of the likeliest class of every row."""
    return [runner.labels[int(encoded(runner, row[text]).argmax())] for row in rows]


@torch.inference_mode()
def tags(runner: Any, words: Sequence[str]) -> list[str]:
    """Return the tag of every word, by its first token."""
    read = runner.tokenizer(list(words), is_split_into_words=True, return_tensors="pt")
    found = runner.encode(read["input_ids"], None, read.get("token_type_ids"))[0].argmax(-1).tolist()
    owners = read.word_ids()
    return [runner.labels[found[owners.index(word)]] for word in range(len(words))]


@torch.inference_mode()
def span(runner: Any, question: str, context: str, most: int = 384, stride: int = 128, longest: int = 30) -> str:
    """Return the likeliest span of ``context``, over all windows and all pairs of tokens, in plain Python."""
    read = runner.tokenizer(
        question, context, truncation="only_second", max_length=most, stride=stride, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    best: tuple[float, str] = (-1e30, "")
    for place, ids in enumerate(read["input_ids"]):
        types = torch.tensor([read["token_type_ids"][place]]) if "token_type_ids" in read else None
        logits = runner.encode(torch.tensor([ids]), None, types)[0].float()
        inside = [at for at, side in enumerate(read.sequence_ids(place)) if side == 1]
        characters = read["offset_mapping"][place]
        for first in inside:
            for last in range(first, min(first + longest, inside[-1] + 1)):
                score = float(logits[first, 0] + logits[last, 1])
                if score > best[0]:
                    best = score, context[characters[first][0] : characters[last][1]]
    return best[1]


@torch.inference_mode()
def vector(runner: Any, text: str, most: int = 128) -> np.ndarray[Any, Any]:
    """Return the normalised mean of the last hidden states."""
    mean = encoded(runner, text, most=most).mean(dim=0)
    return (mean / mean.norm()).numpy()  # type: ignore[no-any-return]


def vectors(runner: Any, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the vectors of several texts [texts, width]."""
    return np.stack([vector(runner, text) for text in texts])


def places(runner: Any, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the rank of each query's own document among all."""
    cosines = vectors(runner, queries) @ vectors(runner, documents).T
    return 1 + (cosines > np.diagonal(cosines)[:, None]).sum(axis=1)  # type: ignore[no-any-return]


@torch.inference_mode()
def log_likelihood(runner: Any, before: Sequence[int], after: Sequence[int]) -> float:
    """Return the log-probability of ``after``, in one pass over both, as lm-evaluation-harness with batches of one."""
    logs = runner.logits(torch.tensor([[*before, *after]]))[0].float().log_softmax(dim=-1)
    return sum(float(logs[len(before) + place - 1, token]) for place, token in enumerate(after))


@torch.inference_mode()
def written(runner: Any, ids: Sequence[int], new_tokens: int, stops: Sequence[str] = ()) -> str:
    """Write on greedily after ``ids``, to the end token, a stop text or so many tokens."""
    logits, cache = runner.prefill(torch.tensor([ids]), None)
    found: list[int] = []
    while len(found) < new_tokens:
        token = int(logits[0].argmax())
        if token == runner.tokenizer.eos_token_id:
            break
        found.append(token)
        text = runner.tokenizer.decode(found, skip_special_tokens=True)
        if any(stop in text for stop in stops):
            break
        logits, cache = runner.step(torch.tensor([[token]]), cache)
    text = runner.tokenizer.decode(found, skip_special_tokens=True)
    return min((text.partition(stop)[0] for stop in stops), key=len, default=text).strip()


def all_written(
    runner: Any, prompts: Sequence[str | list[int]], new_tokens: int, stops: Sequence[str] = ()
) -> list[str]:
    """Return what follows each prompt."""
    return [written(runner, ids_of(runner, prompt), new_tokens, stops) for prompt in prompts]


def words_of(text: str) -> list[str]:
    """Return SQuAD's normalised words."""
    kept = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def word_f1(answer: str, wanted: str) -> float:
    """Return SQuAD's F1."""
    ours, theirs = words_of(answer), words_of(wanted)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not ours or not theirs:
        return float(ours == theirs)
    return 0.0 if not shared else 2 / (len(ours) / shared + len(theirs) / shared)


def best_f1(answer: str, accepted: Sequence[str]) -> float:
    """Return the F1 beside the accepted answer that is nearest."""
    return max(word_f1(answer, each) for each in accepted)


def windows(ids: Sequence[int], tokens: int, stride: int) -> Iterator[tuple[Sequence[int], int]]:
    """Yield pieces of a document, each with how many of its tokens are context."""
    end = min(tokens, len(ids))
    yield ids[:end], 1
    while end < len(ids):
        before, end = end, min(end + stride, len(ids))
        yield ids[max(0, end - tokens) : end], before - max(0, end - tokens)


def ids_of(runner: Any, prompt: str | list[int]) -> list[int]:
    """Return the ids of a prompt, or of a source with the tokens that the tokenizer puts around it."""
    if not isinstance(prompt, str):
        return prompt
    return runner.tokenizer(prompt)["input_ids"]  # type: ignore[no-any-return]


def chat(runner: Any, text: str) -> list[int]:
    """Return the ids of what a user says, in the chat template."""
    said = [{"role": "user", "content": text}]
    made = runner.tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    return runner.tokenizer(made, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


@torch.inference_mode()
def likeliest(runner: Any, ids: Sequence[int]) -> list[int]:
    """Return the likeliest token after every one."""
    return runner.logits(torch.tensor([ids]))[0].argmax(-1).tolist()  # type: ignore[no-any-return]


def continuation(runner: Any, prompt: str, text: str) -> float:
    """Return the log-probability of ``text`` after ``prompt``, split where lm-evaluation-harness splits."""
    before, whole = (runner.tokenizer(each)["input_ids"] for each in (prompt, prompt + text))
    return log_likelihood(runner, before, whole[len(before) :])
