"""LiteRT, once TensorFlow Lite: static graphs on XNNPACK, for encoders.

A graph has one size of batch and text, so there is a file for each; a smaller batch is filled up. In 8 bits every
output channel has a scale, and activations get one per token as they come; the rounding is ours, which its quantiser
finds again: symmetric, by the largest weight of a channel. Decoders gain nothing: the cache would be copied at every
token (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.protocols.candidate import Runtime
from objectives.runtime.engines.engine import EngineRuntime
from objectives.runtime.engines.folder import EncoderEngine, Facts, Opener, write_facts
from objectives.runtime.packages import Packages
from objectives.settings import FORBID
from objectives.types import ENCODERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from objectives.protocols.candidate import BuildContext, Candidate
    from objectives.protocols.running import Device, Runner
    from objectives.runtime.engines.folder import Engine, Floats, Ids
    from objectives.types import Head

FIRST = (1, 16)
"""Rows and tokens of the file that every folder has."""
WASTE = 2.0
"""The size, over the size that is needed, from which another file is made."""


@settings(frozen=True, kw_only=True, config=FORBID)
class LiteRt(EngineRuntime, Opener, Runtime):
    """Runs encoders in LiteRT. It has no settings: its kernels know one way to compute each width."""

    @property
    @override
    def name(self) -> str:
        return "litert"

    @property
    @override
    def packages(self) -> Packages:
        return Packages("litert", ("ai_edge_litert",), ("litert_torch", "ai_edge_quantizer"))

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        from objectives.runtime.engine_support import refused

        return refused(candidate, head, device, heads=ENCODERS, bits=(32, 8))

    @override
    def prepare(self, context: BuildContext) -> Runner:
        from objectives.runtime.engines.runner import EngineRunner

        runner = super().prepare(context)
        assert isinstance(runner, EngineRunner)
        assert isinstance(runner.engine, _Encoder)
        folder = runner.folder
        runner.engine.make = lambda rows, tokens: self._convert(folder, context, rows, tokens)
        return runner

    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.weights import block_linears, sizes

        began, model = perf_counter(), context.model()
        self._convert(folder, context, *FIRST)
        inside = block_linears(model)
        stored = {name: size for name, size in sizes(model, least_bits=32).items() if name in inside}
        others = max(0, _file(folder, *FIRST).stat().st_size - sum(stored.values()))
        write_facts(folder, engine_facts_of(self, model, began, stored, others, {}))

    def _convert(self, folder: Path, context: BuildContext, rows: int, tokens: int) -> None:
        """Write the file for [rows, tokens] into ``folder``."""
        from objectives.runtime.engine_support import rounds_activations
        from objectives.runtime.engines.litert_graph import convert

        rounds = rounds_activations(context.quantizer)

        def write(new: Path) -> None:
            _file(new, rows, tokens).write_bytes(convert(context.model(), rows, tokens, rounds))

        converted = context.engine(write, f"{rows}x{tokens}")
        _file(converted, rows, tokens).replace(_file(folder, rows, tokens))

    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        return _Encoder(folder, threads)


def _file(folder: Path, rows: int, tokens: int) -> Path:
    return folder / f"{rows}x{tokens}.tflite"


class _Encoder(EncoderEngine):
    """An encoder that runs the file whose size fits. ``make`` writes the file of a size, where that can be done."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._open: dict[tuple[int, int], Any] = {}
        self.make: Callable[[int, int], None] | None = None

    @override
    def encode(self, ids: Ids, mask: NDArray[np.bool_] | None, types: Ids | None = None) -> Floats:
        import numpy as np

        from objectives.runtime.engines.masks import bidirectional

        rows, tokens = ids.shape
        size = self._size(rows, tokens, exact=mask is None)
        if size == (rows, tokens):
            return self._run(size, ids, bidirectional(ids, mask), types)
        if size[0] < rows:  # in several batches
            cuts = [slice(at, at + size[0]) for at in range(0, rows, size[0])]
            given = [[None if each is None else each[cut] for each in (ids, mask, types)] for cut in cuts]
            return np.concatenate([self.encode(*part) for part in given])  # type: ignore[arg-type]
        counts = _filled(np.ones(ids.shape, np.bool_) if mask is None else mask, size)
        filled = _filled(ids, size)
        answer = self._run(size, filled, bidirectional(filled, counts), None if types is None else _filled(types, size))
        return answer[:rows] if answer.ndim == 2 else answer[:rows, :tokens]

    def _size(self, rows: int, tokens: int, exact: bool) -> tuple[int, int]:
        """Return the rows and tokens of the file to run: the smallest that holds as much.

        A new one is made, where that can be done, if that file is too large or missing, or if the texts are not padded
        (``exact``) and have another size. Where none is made, a file may have fewer rows. Raises Unsupported for a text
        longer than the files hold.
        """
        if (rows, tokens) in self._open:
            return rows, tokens
        sizes = sorted(self._sizes(), key=lambda size: size[0] * size[1])
        size = next((size for size in sizes if size[0] >= rows and size[1] >= tokens), None)
        fits = size == (rows, tokens) or (not exact and size is not None and size[0] * size[1] <= WASTE * rows * tokens)
        if size is not None and (fits or self.make is None):
            return size
        if self.make is not None:
            size = (rows, tokens) if exact else (_power(rows), max(16, _power(tokens)))
            self.make(*size)
            return size
        long_enough = [size for size in sizes if size[1] >= tokens]
        if not long_enough:
            longest = max(size[1] for size in sizes)
            raise Unsupported(f"LiteRT: the folder's files hold texts of {longest} tokens at most, got {tokens}")
        return long_enough[-1]

    def _sizes(self) -> list[tuple[int, int]]:
        return [
            (int(rows), int(tokens))
            for file in self._folder.glob("[0-9]*x*.tflite")
            for rows, tokens in [file.stem.split("x")]
        ]

    def _run(self, size: tuple[int, int], ids: Ids, mask: Floats, types: Ids | None) -> Floats:
        import numpy as np

        if size not in self._open:
            self._open[size] = self._interpreter(size)
        interpreter, places, output = self._open[size]
        given = (ids.astype(np.int32), mask, (np.zeros_like(ids) if types is None else types).astype(np.int32))
        for place, value in zip(places, given):
            interpreter.set_tensor(place, value)
        interpreter.invoke()
        answer: Floats = interpreter.get_tensor(output)
        return answer

    def _interpreter(self, size: tuple[int, int]) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        from objectives.runtime.engines.silence import silence

        with silence():  # it says which kernels it found
            interpreter = Interpreter(str(_file(self._folder, *size)), num_threads=self._threads)
            interpreter.allocate_tensors()
        inputs = sorted(interpreter.get_input_details(), key=lambda each: each["name"])  # args_0, args_1 ...
        return interpreter, [each["index"] for each in inputs], interpreter.get_output_details()[0]["index"]


def _filled(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return ``values`` [rows, tokens] in the first rows and columns of zeros of that size."""
    import numpy as np

    filled = np.zeros(size, values.dtype)
    filled[: values.shape[0], : values.shape[1]] = values
    return filled


def _power(count: int) -> int:
    """Return the least power of two that is no less than ``count``."""
    return 1 << (count - 1).bit_length()
