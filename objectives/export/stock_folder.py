"""Writes a measured model as a folder in a stock format, with its card, and lets stock engines load it.

The folder is only left behind where no engine answers otherwise than the measured model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from objectives.errors import ModelError, Unsupported
from objectives.export import card, formats
from objectives.export.engines import Layout, Loader, loading
from objectives.export.relatives import layout_of
from objectives.export.stock_check import Outcome, Seen, look, worst
from objectives.models import LoadedModel
from objectives.protocols.running import Runner
from objectives.runtime.engines.weights import Dense, matrices

_TRUSTED = "--trust-remote-code"


@dataclass(frozen=True)
class Written:
    """A folder that was written: the bytes of its weights, and what stock engines made of it, as lines."""

    weight_bytes: int
    lines: tuple[str, ...]


def save(
    runner: Runner, model: LoadedModel, format: str, folder: Path, facts: Mapping[str, Any], prompts: Tensor
) -> Written:
    """Write ``model`` into the new ``folder`` in ``format``, and ask the stock engines that are here.

    ``runner``: what was measured, of the same weights; ``facts``: for the card; ``prompts`` [rows, tokens]: what
    engines write on from. Raises Unsupported for what the format cannot hold, and ModelError, leaving nothing, where an
    engine answers otherwise than ``runner``.
    """
    _require_decoder(model, format)
    chosen, layout = formats.load(format), layout_of(model)
    trusted, kv_bits = layout is Layout.DECI and format == "hf", facts.get("kv_bits", 16)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / "part"
        part.mkdir()
        sizes = chosen.write(model, runner.tokenizer, part)
        rows = loading(layout, _bits(model), format)
        loaders = [each for each in chosen.LOADERS if any(row.engine == each.engine for row in rows)]
        seen = [look(runner, model, each, chosen.opened(part), prompts, trusted) for each in loaders]
        other = worst(seen)
        if other is not None:
            raise ModelError(f"{folder}: it is not left behind: {other.line}")
        asked = {each.engine: each for each in loaders}
        more = {engine: [_TRUSTED] * trusted + [each.key_values.get(kv_bits, "")] for engine, each in asked.items()}
        exact = {each.engine: found.exact for each, found in zip(loaders, seen)}
        commands = {
            engine: " ".join(filter(None, [exact[engine], command, *more[engine]]))
            for engine, command in chosen.COMMANDS.items()
            if engine in asked
        }
        others = [row for row in rows if row.engine not in asked]
        card.write(part, format, facts, seen, others, commands)
        part.rename(folder)
    notes = [*_notes(model, runner, format, seen), *_key_values(kv_bits, loaders)]
    return Written(sum(sizes.values()), (*(each.line for each in seen), *notes))


def _key_values(bits: int, loaders: Sequence[Loader]) -> Iterator[str]:
    """Yield what is to be said of keys and values that were measured in ``bits``; nothing for 16."""
    if bits != 16:
        without = ", ".join(each.engine for each in loaders if bits not in each.key_values)
        how = f"{without} cannot" if without else "engines round them in ways of their own"
        yield f"it was measured with keys and values in {bits} bits, for which only a command can ask; {how}"


def _require_decoder(model: LoadedModel, format: str) -> None:
    """Raise Unsupported for a model that no stock format is written of."""
    if model.head != "causal_lm":
        raise Unsupported(
            f"format={format}: stock formats are written of decoders (model.head=causal_lm), this one is {model.head}; "
            "format=engine writes it, as a plain checkpoint where it can be one"
        )
    device = model.module.device.type
    if device != "cpu":
        raise Unsupported(f"format={format}: models on {device} are not written; the same study with device=cpu is")


def _bits(model: LoadedModel) -> set[int]:
    """Return the bits of the matrices that are rounded; 16 where none is."""
    found = {each.bits for _, each in matrices(model) if not isinstance(each, Dense)}
    return found or {16}


def _notes(model: LoadedModel, runner: Runner, format: str, seen: list[Seen]) -> list[str]:
    notes = []
    if not any(each.outcome is Outcome.EQUAL for each in seen):
        notes.append("no stock engine was seen to load it here, so nothing is promised")
    if format == "gguf":
        from objectives.runtime.formats.gguf_vocabulary import vocabulary_of

        notes += [f"note: {each.value}" for each in vocabulary_of(runner.tokenizer, model.vocabulary).limits]
    return notes
