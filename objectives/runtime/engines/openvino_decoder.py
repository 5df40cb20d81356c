"""Drives OpenVINO's graphs of decoders, and of encoder-decoders, whose caches are inside.

A graph holds one cache: only the latest can be continued. A cache is named by the number of passes up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from objectives.runtime.engines.folder import DecoderEngine, EncoderDecoderEngine, Floats, Ids, Selecting
from objectives.runtime.engines.masks import bidirectional


class Stateful(Selecting):
    """An inference request with a cache inside, of which every pass takes the rows that are asked for."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()
        self._rows = np.zeros(0, np.int32)
        self._passes = 0

    def start(self, rows: int) -> int:
        """Forget the cache, and return the name of the empty one."""
        self.request.reset_state()
        self._rows = np.arange(rows, dtype=np.int32)
        self._passes += 1
        return self._passes

    @override
    def select(self, cache: int, rows: Sequence[int]) -> int:
        """Make the next pass take these rows. Raises ValueError for a cache that is not the latest."""
        self._require_latest(cache)
        self._rows = self._rows[list(rows)]
        self._passes += 1
        return self._passes

    def infer(self, cache: int, **inputs: NDArray[Any]) -> tuple[Floats, int]:
        """Return the logits and the new cache. Raises ValueError for a cache that is not the latest."""
        self._require_latest(cache)
        logits: Floats = self.request.infer({**inputs, "rows": self._rows}, share_inputs=True)[0]
        self._rows = np.arange(len(self._rows), dtype=np.int32)
        self._passes += 1
        return logits, self._passes

    def _require_latest(self, cache: int) -> None:
        if cache != self._passes:
            raise ValueError("OpenVINO keeps one cache, and a later call has used it")


class Decoder(Stateful, DecoderEngine):
    """A decoder in an inference request of its own."""

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: int) -> tuple[Floats, int]:
        return self.infer(cache, ids=ids, mask=mask, places=places, wanted=wanted)


@dataclass(frozen=True)
class Read:
    """The sources of a batch.

    ``number``: that of the reading; ``values``: keys and values of the cross-attentions by name; ``mask``: additive;
    ``origins``: by row, the number of its source.
    """

    number: int
    values: dict[str, Any]
    mask: Floats
    origins: tuple[int, ...]

    def taken(self, rows: Sequence[int]) -> Read:
        """Return the sources of these rows; itself where every row keeps its source."""
        import openvino

        origins = tuple(self.origins[row] for row in rows)
        if origins == self.origins:
            return self
        places = list(rows)
        values = {name: openvino.Tensor(tensor.data[places]) for name, tensor in self.values.items()}
        return Read(self.number, values, self.mask[places], origins)


class Translator(Stateful, EncoderDecoderEngine):
    """An encoder-decoder in two inference requests; the decoder reads what the encoder wrote where that lies."""

    def __init__(self, reader: Any, writer: Any) -> None:
        super().__init__(writer)
        self._reader = reader.create_infer_request()
        self._names = [port.any_name for port in reader.outputs]
        self._readings = 0
        self._sources = Read(0, {}, np.zeros((0, 1, 1, 0), np.float32), ())

    @override
    def read(self, ids: Ids, mask: NDArray[np.bool_] | None) -> Read:
        """Return the sources; those that were read before are lost."""
        additive = bidirectional(ids, mask)
        self._reader.infer({"ids": ids, "mask": additive}, share_inputs=True, share_outputs=True)
        values = {name: self._reader.get_tensor(name) for name in self._names}
        self._passes += 1  # no cache over other sources can go on
        self._readings += 1
        return Read(self._readings, values, additive, tuple(range(len(ids))))

    @override
    def begin(self, sources: Read) -> int:
        """Return an empty cache. Raises ValueError for sources that are not the latest."""
        if sources.number != self._readings:
            raise ValueError("OpenVINO keeps the sources of one batch, and a later one was read")
        self._use(sources)
        return self.start(len(sources.origins))

    @override
    def select(self, cache: int, rows: Sequence[int]) -> int:
        selected = super().select(cache, rows)
        taken = self._sources.taken(rows)
        if taken is not self._sources:
            self._use(taken)
        return selected

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: int) -> tuple[Floats, int]:
        return self.infer(cache, ids=ids, mask=mask, wanted=wanted, source_mask=self._sources.mask)

    def _use(self, sources: Read) -> None:
        self._sources = sources
        for name, tensor in sources.values.items():
            self.request.set_tensor(name, tensor)
