"""A span head of BERT type: MiniLM-L6 that finds answers in a passage, trained on the conversations of QuAC."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.assets.asset import AssetError, Say
from objectives.assets.dialogues import ASSET as DIALOGUES
from objectives.assets.drills import drills
from objectives.assets.minilm import ASSET as MINILM
from objectives.assets.store import place
from objectives.assets.training import Features, Schedule, answers, own_torch, train_

SCHEDULE = Schedule(passes=1, tokens=2048, rate=3e-4)
TOKENS, STRIDE = 192, 48
"""Tokens of a window of the passage with its question, and tokens that neighbouring windows share."""

_EMPTY = 12  # one window without the answer in so many is kept
_DRILLS = 3  # for each passage
_MOST = 3.0


@dataclass(frozen=True)
class MiniLMQuac:
    """A Hugging Face folder in bfloat16: ``BertForQuestionAnswering`` and its tokenizer.

    A question follows the turn before it: its question and its answer.
    """

    name: str = "minilm-quac"
    version: str = f"{MINILM.version}-{DIALOGUES.version}-1"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Train the span head, and check it on unseen turns."""
        import torch
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        base, data = place(MINILM, say), place(DIALOGUES, say)
        tokenizer = AutoTokenizer.from_pretrained(base)
        turns, unseen = (_turns(data / f"spans/{split}.jsonl") for split in ("train", "test"))
        say(f"training a span head on {len(turns)} questions: 4 minutes on 2 cores")
        with own_torch(seed=0):
            model: Any = AutoModelForQuestionAnswering.from_pretrained(
                base, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, use_safetensors=True
            )
            model.get_input_embeddings().requires_grad_(False)
            train_(model, rows_of(tokenizer, turns), SCHEDULE, {}, say)
        model = model.to(torch.bfloat16)
        say(f"checking: {check(model, list(labelled(tokenizer, unseen))):.2f} nats for an end of an unseen answer")
        model.save_pretrained(into)
        tokenizer.model_max_length = TOKENS  # a task reads windows of that length
        tokenizer.save_pretrained(into)


def check(model: Any, rows: Sequence[Features]) -> float:
    """Return the mean loss of the first and the last token. Raises :class:`AssetError` where it is above the measured.

    Without any knowledge it would be the logarithm of the tokens of a window: 5.
    """
    losses = [
        -float(
            out[f"{end}_logits"][: len(rows[number]["input_ids"])].log_softmax(dim=0)[rows[number][f"{end}_positions"]]
        )
        for number, out in answers(model, rows, 4096, {})
        for end in ("start", "end")
    ]
    loss = sum(losses) / len(losses)
    if not loss < _MOST:
        raise AssetError(f"the trained span head is wrong: a loss of {loss:.2f} nats, expected {_MOST} or less")
    return loss


def _turns(file: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def asked(turn: Mapping[str, Any]) -> str:
    """Return the question after the turn before it."""
    before = turn["history"][-1:]
    return " ".join([*(text for each in before for text in (each["question"], each["answer"])), turn["question"]])


def rows_of(tokenizer: Any, turns: Sequence[Mapping[str, Any]]) -> list[Features]:
    """Return the windows of the turns, each twice, among those of drills about the same passages."""
    draw = random.Random(0)
    passages = dict.fromkeys(turn["context"] for turn in turns)
    easy = [drill for passage in passages for drill in drills(passage, _DRILLS, draw)]
    return [*labelled(tokenizer, easy), *2 * list(labelled(tokenizer, turns))]


def labelled(tokenizer: Any, turns: Sequence[Mapping[str, Any]]) -> Iterator[Features]:
    """Yield a window of each turn with the first and the last token of its answer.

    Some windows that lack the answer have token 0 for both.
    """
    empty = 0
    for turn in turns:
        read = tokenizer(
            asked(turn), turn["context"], truncation="only_second", max_length=TOKENS, stride=STRIDE,
            return_overflowing_tokens=True,
        )  # fmt: skip
        first = turn["answer_start"][0]
        ends = (first, first + len(turn["answer"][0].rstrip()) - 1)
        seen = False
        for window, (ids, types) in enumerate(zip(read["input_ids"], read["token_type_ids"])):
            begin, end = (read.char_to_token(window, at, sequence_index=1) for at in ends)
            inputs = {"input_ids": ids, "token_type_ids": types}
            if begin is None or end is None:
                empty += 1
                if empty % _EMPTY == 0:
                    yield {**inputs, "start_positions": 0, "end_positions": 0}
            elif not seen:
                seen = True
                yield {**inputs, "start_positions": begin, "end_positions": end}


ASSET = MiniLMQuac()
