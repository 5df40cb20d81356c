"""Drives ONNX Runtime's graphs of decoders, and of encoder-decoders: caches are values that the runtime holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from objectives.runtime.engines.folder import DecoderEngine, EncoderDecoderEngine, Floats, Ids, Selecting
from objectives.runtime.engines.masks import bidirectional


class Growing:
    """A session that takes a cache as inputs and gives it as outputs; ``caches``: (heads, width) of each part."""

    def __init__(self, session: Any, caches: Sequence[Sequence[int]]) -> None:
        self._session, self._caches = session, caches
        self._past = [each.name for each in session.get_inputs() if each.name.startswith("past.")]

    def empty(self, rows: int) -> list[Any]:
        """Return an empty cache."""
        from onnxruntime import OrtValue

        parts = (np.zeros((rows, heads, 0, width), np.float32) for heads, width in self._caches)
        return [OrtValue.ortvalue_from_numpy(each) for each in parts]

    def infer(
        self, cache: Sequence[Any], given: dict[str, NDArray[Any]], held: dict[str, Any]
    ) -> tuple[Floats, list[Any]]:
        """Return the logits and the new cache; ``held``: inputs that the runtime holds already."""
        values = {**held, **dict(zip(self._past, cache, strict=True))}
        logits, *present = outputs(self._session, given, values)
        answer: Floats = logits.numpy()
        return answer, present


def outputs(session: Any, given: dict[str, NDArray[Any]], held: dict[str, Any]) -> list[Any]:
    """Return all outputs of ``session`` as values of the runtime's own, which are never copied to Python."""
    binding = session.io_binding()
    for name, array in given.items():
        binding.bind_cpu_input(name, array)
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    for each in session.get_outputs():
        binding.bind_output(each.name, "cpu")
    session.run_with_iobinding(binding)
    values: list[Any] = binding.get_outputs()
    return values


def taken(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    """Return a copy of these rows of every value."""
    from onnxruntime import OrtValue

    return [OrtValue.ortvalue_from_numpy(value.numpy()[list(rows)]) for value in values]


class Decoder(Growing, DecoderEngine, Selecting):
    """A decoder in a session of the runtime; its cache is a list of values that the runtime holds."""

    @override
    def start(self, rows: int) -> list[Any]:
        return self.empty(rows)

    @override
    def select(self, cache: list[Any], rows: Sequence[int]) -> list[Any]:
        return taken(cache, rows)

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: list[Any]) -> tuple[Floats, list[Any]]:
        return self.infer(cache, {"ids": ids, "mask": mask, "places": places, "wanted": wanted}, {})


@dataclass(frozen=True)
class Read:
    """The sources of a batch.

    ``values``: keys and values of the cross-attentions by name; ``mask``: additive; ``origins``: by row, the number of
    its source.
    """

    values: dict[str, Any]
    mask: Floats
    origins: tuple[int, ...]

    def taken(self, rows: Sequence[int]) -> Read:
        """Return the sources of these rows; itself where every row keeps its source."""
        origins = tuple(self.origins[row] for row in rows)
        if origins == self.origins:
            return self
        return Read(dict(zip(self.values, taken(list(self.values.values()), rows))), self.mask[list(rows)], origins)


State = tuple[list[Any], Read]
"""The cache of an encoder-decoder: that of its own tokens, and its sources."""


class Translator(EncoderDecoderEngine, Selecting):
    """An encoder-decoder in two sessions."""

    def __init__(self, reader: Any, writer: Any, caches: Sequence[Sequence[int]]) -> None:
        self._reader, self._writer = reader, Growing(writer, caches)
        self._names = [each.name for each in reader.get_outputs()]

    @override
    def read(self, ids: Ids, mask: NDArray[np.bool_] | None) -> Read:
        additive = bidirectional(ids, mask)
        values = outputs(self._reader, {"ids": ids, "mask": additive}, {})
        return Read(dict(zip(self._names, values)), additive, tuple(range(len(ids))))

    @override
    def begin(self, sources: Read) -> State:
        return self._writer.empty(len(sources.origins)), sources

    @override
    def select(self, cache: State, rows: Sequence[int]) -> State:
        past, sources = cache
        return taken(past, rows), sources.taken(rows)

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: State) -> tuple[Floats, State]:
        past, sources = cache
        given: dict[str, NDArray[Any]] = {"ids": ids, "mask": mask, "wanted": wanted, "source_mask": sources.mask}
        logits, present = self._writer.infer(past, given, sources.values)
        return logits, (present, sources)
