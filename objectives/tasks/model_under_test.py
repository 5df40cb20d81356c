"""The model as a user's function sees it: texts go in, texts and numbers come out. Importing it imports no torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from objectives.errors import NotFinite, TaskError
from objectives.tasks.answers import shown
from objectives.tasks.batching import limit_of
from objectives.tasks.decoding import Ends, continuations
from objectives.tasks.embedding import embeddings
from objectives.tasks.encoding import answers, encode
from objectives.tasks.finite import cause
from objectives.tasks.likelihood import Pair, log_likelihoods, pairs_of
from objectives.tasks.prompting import has_chat_template, prompt_tokens, shortened
from objectives.types import Head

if TYPE_CHECKING:
    from objectives.protocols.running import Runner

log = logging.getLogger(__name__)

LONGEST = 1024
"""Tokens of a text at most, where nobody says."""

_METHODS: Mapping[Head, Sequence[str]] = {
    "causal_lm": ("generate", "log_likelihoods"),
    "seq2seq": ("generate",),
    "encoder": ("encode",),
    "classifier": ("predict", "predict_proba"),
}


class ModelUnderTest:
    """The model that is scored, dense or compressed, whatever engine runs it.

    Give it many texts at once: they are batched by length. Where its numbers are not finite, as those of a broken
    compressed model are, every method raises NotFinite, and the trial fails with that reason. ``runner``: the model as
    tasks of ours drive it, for tokens and logits (:class:`objectives.protocols.running.Runner`).
    """

    def __init__(self, runner: Runner, tokens: int | None, batch_rows: int) -> None:
        """Wrap ``runner``. ``tokens``: the longest text that it reads; ``batch_rows``: how many at a time."""
        self.runner = runner
        self.cut = 0
        self._tokens, self._rows = limit_of(runner.tokenizer, tokens, LONGEST), batch_rows

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer, of a class of transformers."""
        return self.runner.tokenizer

    @property
    def head(self) -> Head:
        """Return the kind of model."""
        return self.runner.head

    @property
    def labels(self) -> Sequence[str]:
        """Return the classes of a classifier; none of another model."""
        return self.runner.labels

    def generate(
        self, prompts: Sequence[str], new_tokens: int = 64, stop: str | Sequence[str] = (), chat: bool = False
    ) -> list[str]:
        """Return what the model writes after every prompt, or of every source: greedily, ``new_tokens`` tokens at most.

        Writing ends at an end token or before ``stop``, a text or several. ``chat``: every prompt is what a user says
        in the tokenizer's chat template. Prompts are cut at their beginning where they and the answer are too long, the
        sources of an encoder-decoder at their end.
        """
        prompts = self._texts("generate", prompts)
        if not isinstance(new_tokens, int) or not 0 < new_tokens < self._tokens:
            raise TaskError(
                f"generate: new_tokens must be a whole number > 0 and < task.tokens={self._tokens}, got {new_tokens}"
            )
        room = self._tokens if self.head == "seq2seq" else self._tokens - new_tokens
        ids = [self._short(self._prompt(text, chat), room) for text in prompts]
        ends = Ends.of(self.runner, [stop] if isinstance(stop, str) else stop)
        found = continuations(self.runner, ids, new_tokens, ends, self._rows)
        written = [text for text in found if text is not None]
        self._require_finite(len(written) == len(found), "generate")
        return written

    def log_likelihoods(self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the log-likelihood of every continuation after its prompt: each prompt has a list of them.

        A continuation begins with the space that parts it from the prompt (``" yes"``).
        """
        prompts, continuations = self._texts("log_likelihoods", prompts), list(continuations)
        if len(prompts) != len(continuations) or any(isinstance(each, str) for each in continuations):
            raise TaskError(f"log_likelihoods: {len(prompts)} prompts need as many lists of continuations")
        asked = [(prompt, text) for prompt, texts in zip(prompts, continuations) for text in texts]
        found = log_likelihoods(self.runner, self._pairs(asked), self._rows)
        self._require_finite(all(map(math.isfinite, found)), "log_likelihoods")
        left = iter(found)
        return [list(islice(left, len(texts))) for texts in continuations]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length 1 for every text [texts, width]: the mean of an encoder's last hidden states."""
        texts = self._texts("encode", texts)
        if not texts:
            return np.zeros((0, 0), np.float32)
        whole = self.tokenizer(list(texts), verbose=False)["input_ids"]
        self.cut += sum(len(ids) > self._tokens for ids in whole)
        found: NDArray[np.float32] = embeddings(self.runner, texts, self._tokens, self._rows).cpu().numpy()
        self._require_finite(bool(np.isfinite(found).all()), "encode")
        return found

    def predict_proba(self, texts: Sequence[str], others: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return a classifier's probability of every class, in the order of ``labels`` [texts, classes].

        ``others``: the second texts, for a classifier of pairs.
        """
        texts = self._texts("predict_proba", texts)
        others = None if others is None else self._texts("predict_proba", others)
        if others is not None and len(others) != len(texts):
            raise TaskError(f"predict_proba: {len(texts)} texts need as many others, got {len(others)}")
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        rows = encode(self.runner, texts, others, self._tokens)
        self.cut += sum(row.is_cut for row in rows)
        found = [one.softmax(dim=-1).numpy() for one in answers(self.runner, rows, self._rows)]
        self._require_finite(all(bool(np.isfinite(one).all()) for one in found), "predict_proba")
        return np.stack(found)

    def predict(self, texts: Sequence[str], others: Sequence[str] | None = None) -> list[str]:
        """Return the likeliest class of every text, or of every pair with ``others``, by its name."""
        return [self.labels[place] for place in self.predict_proba(texts, others).argmax(axis=1)]

    def tell_cut(self) -> None:
        """Log how many texts were cut so far; the same line only once in a process."""
        if self.cut:
            _warn(f"task.tokens: {self.cut} of the texts that the function gave are cut to {self._tokens} tokens")

    # ---- tokens

    def _prompt(self, text: str, chat: bool) -> list[int]:
        if chat and not has_chat_template(self.tokenizer):
            raise TaskError("generate: chat=True needs a tokenizer with a chat template, this one has none")
        ids = prompt_tokens(self.runner, self.head, text, chat)
        if not ids:
            raise TaskError("generate: a prompt has no tokens")
        return ids

    def _pairs(self, asked: Sequence[tuple[str, str]]) -> list[Pair]:
        pairs = pairs_of(self.runner, asked)
        for (_, continuation), (_, after) in zip(asked, pairs):
            if not after:
                raise TaskError(f"log_likelihoods: the continuation {continuation!r} has no tokens after its prompt")
        return [(self._short(before, max(1, self._tokens - len(after))), after) for before, after in pairs]

    def _short(self, ids: Sequence[int], most: int) -> Sequence[int]:
        self.cut += len(ids) > most
        return shortened(self.runner, self.head, ids, most)

    # ---- checks

    def _texts(self, method: str, texts: Sequence[str]) -> list[str]:
        """Return ``texts`` as a list. Raises TaskError for anything else, and for a model without this method."""
        known = _METHODS.get(self.head, ())
        if method not in known:
            raise TaskError(f"{method}: model.head is {self.head}, which has {' and '.join((*known, 'runner'))}")
        listed = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [None]
        if not all(isinstance(text, str) for text in listed):
            raise TaskError(f"{method}: a list of texts expected, got {shown(texts)}")
        return listed  # type: ignore[return-value]  # all are texts

    def _require_finite(self, finite: bool, method: str) -> None:
        if not finite:
            raise NotFinite(f"{method}: the model's numbers are not finite{cause(self.runner)}")


@cache
def _warn(text: str) -> None:
    log.warning(text)
