"""ONNX Runtime: interpreted graphs of hand-written kernels.

A decoder's cache goes in and comes out as values of the runtime's own, never copied to Python. Rounded weights become
MatMulNBits, which rounds activations to 8 bits too, in groups (accuracy level 4; the others run reference loops, 20
times slower). An encoder's 8-bit layers may multiply integers instead (MatMulInteger, ``activations=batch``) with one
activation scale for the whole batch: faster, coarser, and what a text gets depends on its neighbours and on padding.
There are no 16-bit kernels.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Runtime
from objectives.runtime.engines.engine import EngineRuntime
from objectives.runtime.engines.folder import DecoderEngine, EncoderEngine, Facts, Opener, write_facts
from objectives.runtime.packages import Packages
from objectives.settings import FORBID
from objectives.types import ENCODERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from objectives.protocols.candidate import BuildContext, Candidate
    from objectives.protocols.running import Device
    from objectives.runtime.engines.folder import Engine, Floats, Ids
    from objectives.types import Head

MODEL = "model.onnx"


@settings(frozen=True, kw_only=True, config=FORBID)
class OnnxRuntime(EngineRuntime, Opener, Runtime):
    """Runs graphs in ONNX Runtime.

    ``activations``: what shares a scale when layers round their inputs: a ``group`` (``activation_group`` inputs; at 4
    bits, the group of the weights), or in an encoder at 8 bits the ``batch``: answers then depend on what else is in
    the batch.
    """

    activations: Literal["group", "batch"] = "group"
    activation_group: Literal[32, 64, 128] = 64

    @property
    @override
    def name(self) -> str:
        return "onnxruntime"

    @property
    @override
    def packages(self) -> Packages:
        return Packages("onnxruntime", ("onnxruntime",), ("onnx", "onnxscript"))

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        from objectives.runtime.engine_support import refused, rounds_activations

        reason = refused(candidate, head, device, heads=("causal_lm", *ENCODERS), bits=(32, 8, 4))
        quantizer = candidate.quantization
        if reason is None and 8 in quantizer.stored and not rounds_activations(quantizer):
            return "its 8-bit kernels round activations as well: choose quantization.scheme=w8a8"
        if reason is None and self.activations == "batch" and head == "causal_lm":
            return "activations=batch is for encoders: it loses a decoder's outliers (docs/methods/runtimes.md)"
        return reason

    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.graph_export import structure
        from objectives.runtime.engines.onnx_graph import convert, fill

        began, model = perf_counter(), context.model()
        graph = context.graph("onnx", self.versions(), structure(model), write=lambda new: convert(model, new))
        by_batch = self.activations == "batch"
        caches, stored, others = fill(graph, model, folder / MODEL, self.activation_group, by_batch)
        write_facts(folder, engine_facts_of(self, model, began, stored, others, {}, caches))

    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Its threads would go on spinning while another model has its turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
        return _Decoder(session, facts) if facts.head == "causal_lm" else _Encoder(session)


class _Encoder(EncoderEngine):
    """An encoder in a session of the runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [each.name for each in session.get_inputs()]

    @override
    def encode(self, ids: Ids, mask: NDArray[np.bool_] | None, types: Ids | None = None) -> Floats:
        from objectives.runtime.engines.masks import encoder_inputs

        answer: Floats = self._session.run(None, encoder_inputs(self._names, ids, mask, types))[0]
        return answer


class _Decoder(DecoderEngine):
    """A decoder in a session of the runtime; its cache is a list of values that the runtime holds."""

    def __init__(self, session: Any, facts: Facts) -> None:
        self._session, self._caches = session, facts.caches
        self._past = [each.name for each in session.get_inputs() if each.name.startswith("past.")]
        self._outputs = [each.name for each in session.get_outputs()]

    @override
    def start(self, rows: int) -> list[Any]:
        import numpy as np
        from onnxruntime import OrtValue

        empty = (np.zeros((rows, heads, 0, width), np.float32) for heads, width in self._caches)
        return [OrtValue.ortvalue_from_numpy(each) for each in empty]

    @override
    def run(self, ids: Ids, mask: Floats, places: Ids, wanted: Ids, cache: list[Any]) -> tuple[Floats, list[Any]]:
        binding = self._session.io_binding()
        for name, value in {"ids": ids, "mask": mask, "places": places, "wanted": wanted}.items():
            binding.bind_cpu_input(name, value)
        for name, value in zip(self._past, cache, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        values: Floats = logits.numpy()
        return values, present
