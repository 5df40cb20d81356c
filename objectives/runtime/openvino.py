"""OpenVINO: a graph compiler for CPUs.

Encoders run as they are. Decoders keep their cache inside (ReadValue, Assign): a pass takes the new tokens only.
Weights are constants of the type that our quantisers chose, widened by Convert, Subtract and Multiply, a form that the
compiler recognises and multiplies as it is. Below 16 bits it rounds a layer's inputs too, to 8 bits, in groups;
``quantization.scheme=weight_only`` turns that off.
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
from objectives.runtime.engines.signal_stack import signal_stack_kept
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

MODEL = "model.xml"


@settings(frozen=True, kw_only=True, config=FORBID)
class OpenVino(EngineRuntime, Opener, Runtime):
    """Runs graphs that OpenVINO compiled.

    ``precision``: the type in which what is not rounded is computed, ``bf16`` where the CPU has it or ``f32``; models
    of 32 bits are always computed in f32. ``activation_group``: inputs that share a scale when a layer of 8 or 4 bits
    rounds them; larger is faster, smaller more exact. ``activations``: an encoder's 8-bit layers round their inputs as
    they come (``dynamic``) or by scales that calibration fixed (``static``, through nncf). ``cache_bits``: bits of a
    decoder's keys and values.
    """

    precision: Literal["bf16", "f32"] = "bf16"
    activation_group: Literal[32, 64, 128, 256] = 64
    activations: Literal["dynamic", "static"] = "dynamic"
    cache_bits: Literal[16, 8] = 8

    @property
    @override
    def name(self) -> str:
        return "openvino"

    @property
    @override
    def packages(self) -> Packages:
        return Packages("openvino", ("openvino",), ("nncf",) if self.activations == "static" else ())

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        from objectives.runtime.engine_support import refused, rounds_activations

        reason = refused(candidate, head, device, heads=("causal_lm", "seq2seq", *ENCODERS), bits=(32, 16, 8, 4))
        if reason is None and self.activations == "static":
            if head not in ENCODERS:
                return "activations=static is for encoders: those of a decoder differ too much from token to token"
            if candidate.quantization.stored != {8} or not rounds_activations(candidate.quantization):
                return "activations=static needs quantization.bits=8 and scheme=w8a8"
        return reason

    @signal_stack_kept()
    @override
    def write(self, folder: Path, context: BuildContext) -> None:
        from objectives.runtime.engine_support import rounds_activations
        from objectives.runtime.engines.engine_facts import engine_facts_of
        from objectives.runtime.engines.graph_export import structure
        from objectives.runtime.engines.openvino_graph import convert, filled, round_activations, save
        from objectives.runtime.engines.openvino_seq2seq import convert_halves, fill_halves
        from objectives.runtime.engines.weights import sizes

        began, model = perf_counter(), context.model()
        converted = convert_halves if model.head == "seq2seq" else convert
        graph = context.graph("openvino", self.versions(), structure(model), write=lambda new: converted(model, new))
        static = self.activations == "static"
        if model.head == "seq2seq":
            stored, bits = fill_halves(graph, model, folder)
        else:
            complete, stored, bits = filled(graph, model, plain=static)
            if static:
                complete, stored, bits = round_activations(complete, context.calibration), sizes(model), {8}
            save(complete, folder / MODEL)
        others = sum(file.stat().st_size for file in folder.glob("*.bin")) - sum(stored.values())
        rounds = rounds_activations(context.quantizer)
        options = {"wide": 32 in bits, "rounds": rounds}
        write_facts(folder, engine_facts_of(self, model, began, stored, max(0, others), options))

    @signal_stack_kept()
    @override
    def open(self, folder: Path, facts: Facts, threads: int) -> Engine:
        from objectives.runtime.engines.silence import keep_streams_open, without_telemetry

        without_telemetry()
        import openvino

        from objectives.runtime.engines.folder import HALVES
        from objectives.runtime.engines.openvino_decoder import Decoder, Translator
        from objectives.runtime.engines.openvino_faults import keep_gates_apart, usable_threads

        keep_streams_open()
        core = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        narrow = native and self.precision == "bf16" and not facts.options["wide"]
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if narrow else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.activation_group if facts.options["rounds"] else 0,
            "KV_CACHE_PRECISION": "f32"
            if facts.options["wide"]
            else {8: "u8", 16: "bf16" if narrow else "f16"}[self.cache_bits],
        }

        def compiled(file: str) -> Any:
            graph = core.read_model(folder / file)
            if narrow and usable_threads(threads) == 1:
                keep_gates_apart(graph)
            return core.compile_model(graph, "CPU", config)

        if facts.head == "seq2seq":
            return Translator(*(compiled(f"{half}.xml") for half in HALVES))
        return Decoder(compiled(MODEL)) if facts.head == "causal_lm" else _Encoder(compiled(MODEL))


class _Encoder(EncoderEngine):
    """An encoder in an inference request of its own."""

    def __init__(self, compiled: Any) -> None:
        self._names = [port.any_name for port in compiled.inputs]
        self._request = compiled.create_infer_request()

    @override
    def encode(self, ids: Ids, mask: NDArray[np.bool_] | None, types: Ids | None = None) -> Floats:
        from objectives.runtime.engines.masks import encoder_inputs

        outputs = self._request.infer(encoder_inputs(self._names, ids, mask, types), share_inputs=True)
        answer: Floats = outputs[0]
        return answer
