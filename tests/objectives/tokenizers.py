"""Small tokenizers of the kinds that real models have, trained on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from objectives.runtime.formats.gguf_vocabulary import PATTERNS
from objectives.runtime.formats.odd_texts import odd_texts

SPECIAL = ("<|begin|>", "<|end|>")
_CHAT = "{% for turn in messages %}<|begin|>{{ turn['role'] }}\n{{ turn['content'] }}<|end|>\n{% endfor %}<|begin|>"


def by_bytes(pattern: str, size: int = 600, composed: bool = False) -> Any:
    """A byte-level encoding that cuts texts into words as llama.cpp's ``pattern`` does."""
    expressions, whole = next(kind for kind, name in PATTERNS.items() if name == pattern)
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    *first, last = expressions
    cutters: list[Any] = [pre_tokenizers.Digits(individual_digits=True) for _ in first]
    cutters += [pre_tokenizers.Split(Regex(last), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cutters)
    tokenizer.decoder = decoders.ByteLevel()
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(odd_texts(), trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return fast(tokenizer)


def by_pieces(folder: Path, size: int = 2000) -> Any:
    """SentencePiece's byte-pair encoding with bytes for what is unknown, as in Llama 2 and Mistral."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(odd_texts()), model_writer=written, model_type="bpe", vocab_size=size,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False,
        character_coverage=0.98, minloglevel=2,
    )  # fmt: skip
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    return LlamaTokenizer.from_pretrained(folder)


def as_once_stored(tokenizer: Any) -> Any:
    """The same pieces with the steps that the files of Llama 2 name."""
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return fast(backend, ("<s>", "</s>"), unk_token="<unk>")


def fast(backend: Tokenizer, ends: Sequence[str] = SPECIAL, **settings: Any) -> Any:
    """The tokenizer of transformers around ``backend``."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=ends[0], eos_token=ends[1], chat_template=_CHAT,
        clean_up_tokenization_spaces=False, **settings,
    )  # fmt: skip
