"""Makes OpenVINO's graphs: converted once per structure, with a parameter for every matrix, and filled per model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from objectives.errors import Unsupported, said
from objectives.models.batch import batch_of
from objectives.runtime.engines.graph_export import Exported, WeightPlaceholders, export
from objectives.runtime.engines.silence import silence, without_telemetry
from objectives.runtime.engines.weights import Dense, Rounded, Stored, block_linears, matrices

without_telemetry()

import openvino as ov  # noqa: E402
from openvino import opset6, opset13  # noqa: E402

if TYPE_CHECKING:
    from torch import nn

    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel

GRAPH = "graph.xml"
HOLE = "weight:"
CALIBRATED = 128
"""About how many rows static scales are taken from."""


def convert(model: LoadedModel, folder: Path) -> None:
    """Write the graph of ``model``'s structure into ``folder``. Raises Unsupported."""
    with silence():
        exported, module = export(model)
    write_graph(model, exported, module, folder / GRAPH)


def write_graph(model: LoadedModel, exported: Exported, module: nn.Module, file: Path) -> None:
    """Write the graph of what was ``exported`` of ``module``, the fp32 copy of ``model``. Raises Unsupported."""
    with silence():
        try:
            graph = ov.convert_model(exported.program)
        except Exception as error:  # its frontend raises one type for all that it does not know
            raise Unsupported(f"OpenVINO cannot convert this model: {said(error)}") from error
    graph = _named(graph, exported)
    if exported.caches:
        graph = _stateful(graph, exported)
    graph = _opened(graph, WeightPlaceholders(model, exported, module))
    ov.save_model(graph, file, compress_to_fp16=False)


def _named(graph: ov.Model, exported: Exported) -> ov.Model:
    """Rename inputs and outputs in place, as ``exported`` names them. Raises Unsupported if their number differs."""
    for ports, names in ((graph.inputs, exported.inputs), (graph.outputs, exported.outputs)):
        if len(ports) != len(names):
            raise Unsupported(f"OpenVINO's graph has {len(ports)} inputs or outputs, {len(names)} expected")
        for port, name in zip(ports, names):
            port.get_tensor().set_names({name})
    return graph


def _stateful(graph: ov.Model, exported: Exported) -> ov.Model:
    """Return the graph with its caches inside.

    Every past key and value is read from a variable that starts empty; the new one is assigned to it.
    """
    inputs = {port.any_name: port.get_node() for port in graph.inputs}
    rows = opset13.parameter([-1], ov.Type.i32, "rows")
    rows.output(0).set_names({"rows"})
    axis = opset13.constant(0, dtype=np.int64)
    count = opset13.gather(opset13.shape_of(inputs["ids"], "i64"), opset13.constant([0], dtype=np.int64), axis)
    sinks, names = [], [name for name in exported.inputs if name.startswith("past.")]
    for name, result, (heads, width) in zip(names, graph.get_results()[1:], exported.caches, strict=True):
        shape = opset13.concat([count, opset13.constant([heads, 0, width], dtype=np.int64)], 0)
        empty = opset13.broadcast(opset13.constant(0.0, dtype=np.float32), shape)
        past = opset6.read_value(empty, name, ov.Type.f32, ov.PartialShape([-1, heads, -1, width]))
        _redirect(inputs[name].output(0), opset13.gather(past, rows, axis))
        sinks.append(opset6.assign(result.input_value(0).get_node(), name))
    kept = [inputs[name] for name in exported.inputs if name not in names]
    return ov.Model([graph.get_results()[0]], sinks, [*kept, rows], "decoder")


def _opened(graph: ov.Model, holes: WeightPlaceholders) -> ov.Model:
    """Put a parameter in place of every matrix. Raises Unsupported where one is missing."""
    parameters: dict[str, Any] = {}
    for node in _constants(graph):
        hole = holes.find(node.data)
        if hole is None:
            continue
        name, transposed = hole
        shape = list(node.data.shape)
        parameter = opset13.parameter(shape, ov.Type.f32)
        parameter.friendly_name = f"{HOLE}{int(transposed)}:{name}:{len(parameters)}"
        parameter.output(0).set_names({parameter.friendly_name})
        parameters[parameter.friendly_name] = parameter
        _redirect(node.output(0), parameter)
    holes.require_all()
    graph.add_parameters(list(parameters.values()))
    return graph


def _constants(graph: ov.Model) -> Iterator[Any]:
    """Yield the constants that are fp32 matrices."""
    for node in graph.get_ordered_ops():
        is_wide = node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f32
        if is_wide and len(node.get_output_shape(0)) == 2:
            yield node


def _redirect(port: Any, node: Any) -> None:
    """Make everything that reads ``port`` read ``node``."""
    for target in port.get_target_inputs():
        target.replace_source_output(node.output(0))


def filled(
    folder: Path, model: LoadedModel, plain: bool = False, part: str = GRAPH
) -> tuple[ov.Model, dict[str, int], set[int]]:
    """Return the graph ``part`` of ``folder`` with the weights of ``model``, their bytes by name, and what bits occur.

    ``plain``: write the blocks' weights as the fp32 values that they stand for, to be rounded again by others.
    """
    graph = ov.Core().read_model(folder / part)
    stored = dict(matrices(model))
    if plain:
        inside = block_linears(model)
        stored |= {name: Dense(stored[name].dequantized(), 32) for name in inside}
    constants: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    bits: set[int] = set()
    for parameter in list(graph.get_parameters()):
        name = parameter.friendly_name
        if not name.startswith(HOLE):
            continue
        transposed, owner = name.removeprefix(HOLE).split(":")[:2]
        weight = stored[owner]
        if owner not in constants:
            constants[owner], sizes[owner] = _constant(weight)
            bits.add(weight.bits)
        node = constants[owner]
        node = opset13.transpose(node, opset13.constant([1, 0])) if int(transposed) else node
        if isinstance(weight, Rounded) and weight.inputs is not None:
            _scale_inputs(parameter.output(0), weight.inputs)
        _redirect(parameter.output(0), node)
        graph.remove_parameter(parameter)
    return graph, sizes, bits


def _scale_inputs(port: Any, factors: np.ndarray[Any, Any]) -> None:
    """Multiply by ``factors`` what is multiplied with the matrix at ``port``."""
    for target in port.get_target_inputs():
        product = target.get_node()
        rows = product.input_value(0)
        product.input(0).replace_source_output(opset13.multiply(rows, opset13.constant(factors)).output(0))


def _constant(weight: Stored) -> tuple[Any, int]:
    """Return a node that gives the fp32 weight [out, in], and the bytes that it stores."""
    if isinstance(weight, Dense):
        if weight.bits == 32:
            return opset13.constant(weight.values), weight.values.nbytes
        half = weight.values.astype(np.float16)  # holds what bf16 does, but for what is smaller than 6e-5
        if not np.isfinite(half).all():
            raise Unsupported("a weight is larger than 65504, which 16 bits of OpenVINO do not hold")
        return opset13.convert(opset13.constant(half), "f32"), half.nbytes
    scales = weight.scales.astype(np.float16)
    if weight.bits == 8:
        codes = opset13.convert(opset13.constant(weight.codes), "f16")
        return opset13.convert(
            opset13.multiply(codes, opset13.constant(scales)), "f32"
        ), weight.codes.nbytes + scales.nbytes
    assert weight.zeros is not None
    outputs, groups = scales.shape
    codes, zeros = (
        _nibbles(weight.codes, (outputs, groups, weight.group_size)),
        _nibbles(weight.zeros, (outputs, groups, 1)),
    )
    centred = opset13.subtract(opset13.convert(codes, "f16"), opset13.convert(zeros, "f16"))
    scaled = opset13.multiply(centred, opset13.constant(scales[..., None]))
    flat = opset13.reshape(scaled, opset13.constant([outputs, groups * weight.group_size], dtype=np.int64), False)
    return opset13.convert(flat, "f32"), (weight.codes.size + weight.zeros.size) // 2 + scales.nbytes


def _nibbles(values: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Any:
    """Return a constant of 4-bit integers, two to a byte, the first in the low half."""
    flat = values.reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    tensor = ov.Tensor(ov.Type.u4, ov.Shape(list(shape)))
    tensor.data[:] = (flat[::2] | flat[1::2] << 4).reshape(tensor.data.shape)
    return opset13.constant(tensor)


def round_activations(graph: ov.Model, calibration: Domains) -> ov.Model:
    """Return the encoder ``graph`` with 8-bit layers that multiply integers, by fixed scales of the activations.

    nncf finds the scales on rows of ``calibration``, by SmoothQuant (https://arxiv.org/abs/2211.10438) and bias
    correction.
    """
    import nncf

    from objectives.runtime.engines.masks import encoder_inputs

    names = [port.any_name for port in graph.inputs]
    rows = [row for batches in calibration.values() for batch in map(batch_of, batches) for row in batch]
    step = max(1, len(rows) // CALIBRATED)
    samples = [
        encoder_inputs(names, row.ids.numpy(), None, None if row.types is None else row.types.numpy())
        for row in rows[::step]
    ]
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with silence():
        quantized: ov.Model = nncf.quantize(
            graph, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
        )
    return quantized


def save(graph: ov.Model, file: Path) -> None:
    """Write ``graph`` to ``file`` (xml), and its weights beside it (bin)."""
    ov.save_model(graph, file, compress_to_fp16=False)
