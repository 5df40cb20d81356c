"""A tiny GPT-type model (Llama architecture, 0.9 M parameters), trained here on Python's own help pages.

It needs no download and builds in 40 to 60 seconds of one core, and it has learned enough that pruning and
rounding visibly hurt, which no randomly initialised model shows. It reads the pages of the split ``train``
(:mod:`objectives.assets.python_topics`), so that ``test`` is unseen text.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.assets.asset import AssetError, Say
from objectives.assets.gguf import save_tokenizer
from objectives.assets.python_topics import pages
from objectives.assets.training import own_torch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_END = "<|endoftext|>"  # token 0: ends every page
_VOCABULARY = 512
_ROWS, _TOKENS = 8, 64  # many small steps teach more per second than few large ones
_PEAK_LR = 5e-3


@dataclass(frozen=True)
class Micro:
    """A Hugging Face folder in bfloat16: 4 layers, hidden size 128, 4 heads on 2 KV heads, tied embeddings.

    ``steps``: optimiser steps of 512 tokens each. The version follows the text, which comes with Python.
    """

    steps: int = 600
    name: str = "micro"
    fetched_by_hand: bool = False

    @property
    def version(self) -> str:
        """Return a hash of all that decides the weights: this recipe's number, the steps, and the text."""
        recipe = f"1\n{self.steps}\n" + _END.join(_texts())
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    def build(self, into: Path, say: Say) -> None:
        """Train the tokenizer and the model, and save both."""
        texts = _texts()
        tokenizer = _train_tokenizer(texts)
        ids = [token for text in texts for token in (*tokenizer.encode(text).ids, 0)]
        say(f"training the micro model: {self.steps} steps on {len(ids)} tokens")
        model, loss = _train(ids, self.steps)
        if not math.isfinite(loss):
            raise AssetError(f"training the micro model diverged: loss {loss}")
        say(f"trained: loss {loss:.2f} nats per token at the end")
        model.save_pretrained(into)
        save_tokenizer(tokenizer, into, bos_token=_END, eos_token=_END, pad_token=_END)


def _texts() -> list[str]:
    return [text for _, text in pages()["train"]]


def _train_tokenizer(texts: list[str]) -> Tokenizer:
    """Train a byte-level BPE, so that every text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train(ids: list[int], steps: int) -> tuple[Any, float]:
    """Return the model in bfloat16 after ``steps`` of AdamW with a one-cycle rate, and its mean loss at the end."""
    import torch

    with own_torch(seed=0, threads=1):  # for the same weights everywhere
        tokens = torch.tensor(ids)
        model = _new_model()
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps, pct_start=0.1)
        losses = []
        for _ in range(steps):
            starts = torch.randint(len(tokens) - _TOKENS, (_ROWS, 1))
            rows = tokens[starts + torch.arange(_TOKENS)]
            loss = model(input_ids=rows, labels=rows, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    last = losses[-20:]
    return model.to(torch.bfloat16).eval(), sum(last) / len(last)


def _new_model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=128**-0.5,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # blocks that start as the identity learn about twice as fast here
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


ASSET = Micro()
