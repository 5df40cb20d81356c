"""Rules that the runtimes share: what those with our codes ask of a quantiser, and what none of them runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from objectives.protocols.optional import Masking, Portable, RoundsKeyValues
from objectives.types import ENCODERS, Head

if TYPE_CHECKING:
    from objectives.protocols.candidate import Candidate, Quantizer
    from objectives.protocols.running import Device

KINDS: Mapping[Head, str] = {
    "causal_lm": "decoders", **dict.fromkeys(sorted(ENCODERS), "encoders"), "seq2seq": "encoder-decoders",
}  # fmt: skip


def portable(quantizer: Quantizer) -> Quantizer:
    """Return what ``quantizer`` says is nearest to it and portable; itself where it says nothing."""
    return quantizer.portable() if isinstance(quantizer, Portable) else quantizer


def rounds_activations(quantizer: Quantizer) -> bool:
    """Return whether a layer's inputs are to be rounded to 8 bits too."""
    return quantizer.scheme == "w8a8"


def refused(
    candidate: Candidate, head: Head, device: Device, heads: Collection[Head], bits: Collection[int]
) -> str | None:
    """Return the first reason not to run ``candidate`` in a runtime that takes ``heads`` in ``bits`` on CPUs.

    None where there is no such reason.
    """
    quantizer = candidate.quantization
    if not device.runs_engines:
        return f"runs on CPUs, device is {device.name}: device=cpu"
    if head not in heads:
        return f"takes {' and '.join(sorted({KINDS[each] for each in heads}))}, not {KINDS[head]}"
    if not quantizer.stored:
        return "simulated widths are stored by no engine"
    if quantizer.scheme == "fp8":
        return "fp8 is a format of GPUs"
    if isinstance(candidate.pruning, Masking) and candidate.pruning.masks_weights:
        return "masks are stored by no engine: their zeros would be multiplied"
    odd = sorted(quantizer.stored - set(bits))
    if odd:
        return f"{KINDS[head]} in {', '.join(map(str, sorted(bits, reverse=True)))} bits, not {odd[0]}"
    return None


def keeps(candidate: Candidate, head: Head) -> str | None:
    """Return why the candidate's runtime cannot keep keys and values in its ``kv.bits``; None where it can.

    It is asked of every runtime, so that one which knows nothing of it is not taken for one that rounds.
    """
    bits, runtime = candidate.kv.bits, candidate.runtime
    if bits == 16:
        return None
    if head != "causal_lm":
        return f"keys and values of {KINDS[head]} stay as they are: kv.bits=16"
    widths = sorted(runtime.key_value_bits, reverse=True) if isinstance(runtime, RoundsKeyValues) else []
    if bits in widths:
        return None
    return f"keeps keys and values in {' or '.join(map(str, (16, *widths)))} bits, not {bits}: kv.bits=16"


def embeds(candidate: Candidate, device: Device) -> str | None:
    """Return why torch cannot store the candidate's embeddings on ``device``; None where it can."""
    if candidate.quantization.embeddings in device.embeddings:
        return None
    stored = " or ".join(map(str, sorted(device.embeddings, reverse=True)))
    return f"embeddings have {stored} bits on {device.name}: quantization.embeddings=16, or device=cpu"
