"""A small encoder-decoder of T5 type (3.2 M parameters), trained here to say numbers, dates, times and prices in words.

It needs no download. Its answers are right or wrong as a whole, and it loses them little by little as it is compressed.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.assets.asset import AssetError, Say
from objectives.assets.gguf import save_tokenizer
from objectives.assets.spoken_numbers import ASSET as NUMBERS
from objectives.assets.store import place
from objectives.assets.training import Features, Schedule, own_torch, train_

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SCHEDULE = Schedule(passes=4, tokens=1024, rate=1e-3, decay=0.0, short_first=True)

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"  # tokens 0, 1 and 2, as T5 has them
_VOCABULARY = 512
_NEW_TOKENS = 24  # the longest answer has 14
_LEAST = 0.9


@dataclass(frozen=True)
class T5Numbers:
    """A Hugging Face folder in bfloat16: ``T5ForConditionalGeneration``, 3 + 3 blocks, hidden size 192, 6 heads."""

    name: str = "t5-numbers"
    version: str = f"{NUMBERS.version}-1"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Train the tokenizer and the model, and check both on the unseen rows."""
        import torch

        data = place(NUMBERS, say)
        rows = {split: read_rows(data / f"{split}.tsv") for split in ("train", "test")}
        tokenizer = _train_tokenizer([text for row in rows["train"] for text in row])
        say(f"training a T5 on {len(rows['train'])} numbers: 4 minutes on 2 cores")
        with own_torch(seed=0):
            model = _new_model(tokenizer.get_vocab_size())
            train_(model, _features(tokenizer, rows["train"]), SCHEDULE, {"labels": -100}, say)
        model = model.to(torch.bfloat16)
        model.save_pretrained(into)
        save_tokenizer(tokenizer, into, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN)
        say(f"checking: {check(into, rows['test']):.3f} of {len(rows['test'])} unseen rows are right")


def check(path: Path, rows: Sequence[tuple[str, str]]) -> float:
    """Return the share of rows that the model writes as they are. Raises :class:`AssetError` where it is low."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    exact = share_right(model, tokenizer, rows)
    if exact < _LEAST:
        raise AssetError(f"the trained T5 is wrong: {exact:.3f} of the rows are right, expected {_LEAST} or more")
    return exact


def share_right(model: Any, tokenizer: Any, rows: Sequence[tuple[str, str]], batch_rows: int = 100) -> float:
    """Return the share of rows whose target the model writes, greedily."""
    import torch

    right = 0
    for first in range(0, len(rows), batch_rows):
        some = rows[first : first + batch_rows]
        read = tokenizer([source for source, _ in some], padding=True, return_tensors="pt")
        with torch.inference_mode():
            written = model.generate(**read, max_new_tokens=_NEW_TOKENS, do_sample=False)
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        right += sum(text == target for text, (_, target) in zip(texts, some))
    return right / len(rows)


def read_rows(file: Path) -> list[tuple[str, str]]:
    """Return sources and targets of a table of :mod:`objectives.assets.spoken_numbers`."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [(row["source"], row["target"]) for row in csv.DictReader(stream, delimiter="\t")]


def _train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Train a byte-level BPE in which every digit is a token, so that every text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _END, _UNKNOWN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, 1)])
    return tokenizer


def _features(tokenizer: Tokenizer, rows: Sequence[tuple[str, str]]) -> list[Features]:
    sources, targets = (tokenizer.encode_batch([row[side] for row in rows]) for side in (0, 1))
    return [{"input_ids": source.ids, "labels": target.ids} for source, target in zip(sources, targets)]


def _new_model(vocabulary: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(  # type: ignore[call-arg]  # what it takes besides is not declared
        vocab_size=vocabulary,
        d_model=192,
        d_kv=32,
        d_ff=768,
        num_layers=3,
        num_heads=6,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5ForConditionalGeneration(config)


ASSET = T5Numbers()
