"""A classifier of BERT type: MiniLM-L6 with a head for 20 languages, trained on the strings of Django's pages."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.assets.asset import AssetError, Say
from objectives.assets.languages import ASSET as LANGUAGES
from objectives.assets.minilm import ASSET as MINILM
from objectives.assets.store import place
from objectives.assets.training import Features, Schedule, answers, own_torch, train_

SCHEDULE = Schedule(passes=3, tokens=1536, rate=3e-4)
TOKENS = 96
"""Tokens that are read of a string; 1 in 100 has more."""

_LONG = 6
_LEAST = 0.9


@dataclass(frozen=True)
class MiniLMLanguages:
    """A Hugging Face folder in bfloat16: ``BertForSequenceClassification``, its tokenizer, and names of its classes."""

    name: str = "minilm-languages"
    version: str = f"{MINILM.version}-{LANGUAGES.version}-1"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Train the classifier, and check it on the unseen strings."""
        import torch
        from transformers import AutoTokenizer

        base, data = place(MINILM, say), place(LANGUAGES, say)
        tokenizer = AutoTokenizer.from_pretrained(base)
        rows = {split: _rows(data / f"{split}.csv") for split in ("train", "test")}
        labels = sorted({label for _, label in rows["train"]})
        features = {split: _features(tokenizer, some, labels) for split, some in rows.items()}
        features["train"] += _features(tokenizer, halves(rows["train"]), labels)
        say(f"training a classifier of {len(labels)} languages on {len(rows['train'])} strings: 3 minutes on 2 cores")
        with own_torch(seed=0):
            model = _new_model(base, labels)
            train_(model, features["train"], SCHEDULE, {}, say)
        model = model.to(torch.bfloat16)
        say(f"checking: accuracy {check(model, features['test']):.3f} on {len(rows['test'])} unseen strings")
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)
        (into / "LICENSE").write_bytes((base / "LICENSE").read_bytes())


def check(model: Any, rows: Sequence[Features]) -> float:
    """Return the share of right answers. Raises :class:`AssetError` where it is below what was measured."""
    outputs = answers(model, rows, 4096, {})
    accuracy = sum(int(out["logits"].argmax()) == rows[number]["labels"] for number, out in outputs) / len(rows)
    if accuracy < _LEAST:
        raise AssetError(f"the trained classifier is wrong: accuracy {accuracy:.3f}, expected {_LEAST} or more")
    return float(accuracy)


def halves(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return both halves of every long text: so the model learns to tell a language from little."""
    long = [(text.split(), label) for text, label in rows if len(text.split()) >= _LONG]
    return [
        (" ".join(part), label)
        for words, label in long
        for part in (words[: len(words) // 2], words[len(words) // 2 :])
    ]


def _rows(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [(row["text"], row["label"]) for row in csv.DictReader(stream)]


def _features(tokenizer: Any, rows: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[Features]:
    ids = tokenizer([text for text, _ in rows], truncation=True, max_length=TOKENS)["input_ids"]
    return [{"input_ids": each, "labels": labels.index(label)} for each, (_, label) in zip(ids, rows)]


def _new_model(base: Path, labels: Sequence[str]) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        base,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        attn_implementation="eager",  # on a CPU the gradients of fused attention take twice the time of all others
        use_safetensors=True,
    )


ASSET = MiniLMLanguages()
