"""The classes of transformers that build a model with each head, and what of their output is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from objectives.types import ENCODERS, Head

if TYPE_CHECKING:
    from torch import Tensor

_CLASSES: Mapping[Head, str] = {
    "causal_lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
    "classifier": "AutoModelForSequenceClassification",
    "token_classifier": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
}


def auto_class(head: Head) -> Any:
    """Return the class of transformers that builds models with this head."""
    import transformers

    return getattr(transformers, _CLASSES[head])


def is_run_alike(head: Head, other: Head) -> bool:
    """Return whether models with these heads are run alike: encoders are, whatever their head answers."""
    return head == other or {head, other} <= ENCODERS


def encoded(head: Head, output: Any) -> Tensor:
    """Return what ``Runner.encode`` returns, from the ``output`` of a module that is an encoder with this head."""
    answer: Tensor
    if head == "encoder":
        answer = output.last_hidden_state
    elif head == "question_answering":
        import torch

        answer = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        answer = output.logits
    return answer
