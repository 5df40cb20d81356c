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
from objectives.runtime.engines.folder import EncoderEngine, Facts, Opener, write_facts
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

        reason = refused(candidate, head, device, heads=("causal_lm", "seq2seq", *ENCODERS), bits=(32, 8, 4))
        quantizer = candidate.quantization
        if reason is None and 8 in quantizer.stored and not rounds_activations(quantizer):
            return "its 8-bit kernels round activations as well: choose quantization.scheme=w8a8"
        if reason is None and self.activations == "batch" and head in ("causal_lm", "seq2seq"):
            return "activations=batch is for encoders: it loses a decoder's outliers (docs/methods/runtimes.md)"
        return reason

    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.graph_export import structure
        from objectives.runtime.engines.onnx_graph import convert, fill
        from objectives.runtime.engines.onnx_seq2seq import convert_halves, fill_halves

        began, model = perf_counter(), context.model()
        converted = convert_halves if model.head == "seq2seq" else convert
        graph = context.graph("onnx", self.versions(), structure(model), write=lambda new: converted(model, new))
        if model.head == "seq2seq":
            caches, stored, others = fill_halves(graph, model, folder, self.activation_group)
        else:
            by_batch = self.activations == "batch"
            caches, stored, others = fill(graph, model, folder / MODEL, self.activation_group, by_batch)
        write_facts(folder, engine_facts_of(self, model, began, stored, others, {}, caches))

    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        import onnxruntime

        from objectives.runtime.engines.folder import HALVES
        from objectives.runtime.engines.onnx_decoder import Decoder, Translator

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Its threads would go on spinning while another model has its turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")

        def session(file: str) -> Any:
            return onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])

        if facts.head == "seq2seq":
            reader, writer = (session(f"{half}.onnx") for half in HALVES)
            return Translator(reader, writer, facts.caches)
        return Decoder(session(MODEL), facts.caches) if facts.head == "causal_lm" else _Encoder(session(MODEL))


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
