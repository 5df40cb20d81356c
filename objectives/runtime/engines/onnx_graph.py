"""Makes ONNX graphs: converted once per structure, with an input in place of every matrix, and filled per model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from objectives.errors import Unsupported, said
from objectives.runtime.engines.graph_export import Exported, WeightPlaceholders, export
from objectives.runtime.engines.silence import silence
from objectives.runtime.engines.weights import Dense, Rounded, Stored, matrices

if TYPE_CHECKING:
    from torch import nn

    from objectives.models import LoadedModel

GRAPH = "graph.onnx"
HOLE = "weight:"
OPSET = 23
"""The first version with Attention and RotaryEmbedding as single operators."""
CONTRIB = "com.microsoft"
LEVEL = 4
"""MatMulNBits' accuracy level: 8-bit activations."""


def convert(model: LoadedModel, folder: Path) -> None:
    """Write the graph of ``model``'s structure into ``folder``. Raises Unsupported."""
    with silence():
        exported, module = export(model, square=True)
    write_graph(model, exported, module, folder / GRAPH)


def write_graph(model: LoadedModel, exported: Exported, module: nn.Module, file: Path) -> None:
    """Write the graph of what was ``exported`` of ``module``, the fp32 copy of ``model``. Raises Unsupported."""
    import onnx_ir

    with silence():
        try:
            program: Any = torch.onnx.export(
                exported.program, dynamo=True, opset_version=OPSET, input_names=list(exported.inputs),
                output_names=list(exported.outputs), verbose=False,
            )  # fmt: skip
        except Exception as error:  # the exporter wraps whatever an operator raised
            raise Unsupported(f"this model has no ONNX form: {said(error)}") from error
    graph, holes = program.model.graph, WeightPlaceholders(model, exported, module)
    inputs: dict[str, Any] = {}
    for name, value in list(graph.initializers.items()):
        if value.const_value is None or len(value.shape) != 2 or value.dtype != onnx_ir.DataType.FLOAT:
            continue
        hole = holes.find(value.const_value.numpy())
        if hole is not None:
            del graph.initializers[name]
            value.const_value = None
            name = f"{HOLE}{int(hole[1])}:{hole[0]}"
            if name in inputs:  # the matrix of a block that is run more than once
                onnx_ir.convenience.replace_all_uses_with(value, inputs[name])
                continue
            value.name, inputs[name] = name, value
            graph.inputs.append(value)
    holes.require_all()
    _forget_origins_(program.model)
    program.model.metadata_props["caches"] = repr(exported.caches)
    onnx_ir.save(program.model, file)


def _forget_origins_(model: Any) -> None:
    """Remove what the exporter notes of every node and value: lines of code, with the folders of this machine."""
    import onnx_ir

    for graph in (model.graph, *model.functions.values()):
        for one in (graph, *graph.inputs, *onnx_ir.traversal.RecursiveGraphIterator(graph)):
            for noted in (one, *(one.outputs if isinstance(one, onnx_ir.Node) else ())):
                noted.metadata_props.clear()
                noted.doc_string = None
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()


def fill(
    folder: Path, model: LoadedModel, file: Path, group: int, by_batch: bool, part: str = GRAPH
) -> tuple[list[list[int]], dict[str, int], int]:
    """Fill the graph ``part`` of ``folder`` with the weights of ``model``; write it to ``file``, the weights beside it.

    ``group``: inputs that share a scale when an 8-bit layer rounds its activations; ``by_batch``: all share one.
    Returns (heads, width) of each cache, the bytes of each matrix by name, and the bytes of all else.
    """
    import ast

    proto = onnx.load(folder / part)
    caches = ast.literal_eval(next(prop.value for prop in proto.metadata_props if prop.key == "caches"))
    others = sum(len(each.raw_data) for each in proto.graph.initializer)
    filling = WeightWriter(proto.graph, dict(matrices(model)), group, by_batch)
    filling.run()
    proto.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    onnx.save(proto, file, save_as_external_data=True, location=file.name + ".data", size_threshold=1024)
    return [list(cache) for cache in caches], filling.sizes, others


@dataclass
class WeightWriter:
    """Replaces every operator that reads a placeholder by operators that read the matrix as it is stored.

    An operator of an unknown type is an error: a matrix passed over in silence would stay in 32 bits.
    """

    graph: Any
    stored: dict[str, Stored]
    group: int
    by_batch: bool
    sizes: dict[str, int] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    made: dict[str, TensorProto] = field(default_factory=dict)
    activations: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def run(self) -> None:
        """Replace all of them in the graph, in place. Raises Unsupported."""
        holes = {each.name: each for each in self.graph.input if each.name.startswith(HOLE)}
        turned = dict(self._turned(holes))
        for node in self.graph.node:
            if node.output[0] in turned:
                continue
            read = [name for name in node.input if name in holes or name in turned]
            if read:
                self._replace(node, read[0], turned.get(read[0], read[0]), read[0] in turned)
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(self.made.values())
        for each in holes.values():
            self.graph.input.remove(each)

    def _turned(self, holes: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield, for every placeholder that is transposed, the name of the transposed matrix and its own."""
        for node in self.graph.node:
            if node.op_type == "Transpose" and node.input[0] in holes:
                yield node.output[0], node.input[0]

    def _replace(self, node: NodeProto, name: str, hole: str, turned: bool) -> None:
        transposed, owner = hole.removeprefix(HOLE).split(":")
        weight = self.stored[owner]
        if node.op_type == "Gather" and node.input[0] == name and not int(transposed):
            self._lookup(node, owner, weight)
        elif node.op_type == "MatMul" and node.input[1] == name and bool(int(transposed)) != turned:
            self._multiply(node, owner, weight)
        elif node.op_type == "Gemm" and node.input[1] == name and (bool(int(transposed)) != turned) != _flipped(node):
            product = f"{node.output[0]}.product"
            self._multiply(helper.make_node("MatMul", node.input[:2], [product]), owner, weight)
            self.nodes.append(_like(node, "Add", [product, node.input[2]]))
        else:
            raise Unsupported(f"{owner}: no form of {node.op_type} for what is stored")

    def _multiply(self, node: NodeProto, owner: str, weight: Stored) -> None:
        """Replace ``node``, which computes x @ W^T."""
        if isinstance(weight, Dense):  # 16 bits would be widened on loading
            self.nodes.append(_like(node, "MatMul", [node.input[0], self._add(f"{owner}.T", weight.values.T, owner)]))
            return
        rows = node.input[0]
        if weight.inputs is not None:
            scaled = f"{node.output[0]}.scaled"
            self.nodes.append(
                helper.make_node("Mul", [rows, self._add(f"{owner}.inputs", weight.inputs, owner)], [scaled])
            )
            rows = scaled
        if weight.bits == 8 and self.by_batch:
            self._multiply_integers(node, rows, owner, weight)
        else:
            self._multiply_groups(node, rows, owner, weight)

    def _multiply_groups(self, node: NodeProto, rows: str, owner: str, weight: Rounded) -> None:
        outputs, inputs = weight.codes.shape
        if weight.bits == 8:
            group = self.group
            codes = _blocks((weight.codes.astype(np.int16) + 128).astype(np.uint8), group, 128)
            scales = np.repeat(weight.scales, codes.shape[1], axis=1)
            more = []
        else:
            assert weight.zeros is not None
            group, scales = weight.group_size, weight.scales
            codes = _nibbles(_blocks(weight.codes, group, 0))
            more = [self._add(f"{owner}.zeros", _nibbles(weight.zeros).reshape(-1), owner)]
        stored = [self._add(f"{owner}.codes", codes, owner), self._add(f"{owner}.scales", scales.reshape(-1), owner)]
        self.nodes.append(
            _like(
                node,
                "MatMulNBits",
                [rows, *stored, *more],
                domain=CONTRIB,
                K=inputs,
                N=outputs,
                bits=weight.bits,
                block_size=group,
                accuracy_level=LEVEL,
            )
        )

    def _multiply_integers(self, node: NodeProto, rows: str, owner: str, weight: Rounded) -> None:
        if rows not in self.activations:
            names = (f"{rows}.codes", f"{rows}.scale", f"{rows}.zero")
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [rows], names))
            self.activations[rows] = names
        codes, scale, zero = self.activations[rows]
        product, widened, scales = (f"{node.output[0]}.{what}" for what in ("product", "widened", "scales"))
        matrix = self._add(f"{owner}.codes.T", weight.codes.T, owner)
        zeros = self._add(f"{owner}.zero", np.zeros((), np.int8), owner)
        self.nodes += [
            helper.make_node("MatMulInteger", [codes, matrix, zero, zeros], [product]),
            helper.make_node("Cast", [product], [widened], to=TensorProto.FLOAT),
            helper.make_node("Mul", [scale, self._add(f"{owner}.scales", weight.scales[:, 0], owner)], [scales]),
            _like(node, "Mul", [widened, scales]),
        ]

    def _lookup(self, node: NodeProto, owner: str, weight: Stored) -> None:
        """Replace ``node``, which gathers rows of an embedding."""
        ids, rows = node.input[1], f"{node.output[0]}.rows"
        axis = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if isinstance(weight, Dense):
            values = weight.values if weight.bits == 32 else weight.values.astype(np.float16)
            table = self._add(f"{owner}.{weight.bits}", values, owner)
            self.nodes += [
                helper.make_node("Gather", [table, ids], [rows], **axis),
                _like(node, "Cast", [rows], to=TensorProto.FLOAT),
            ]
            return
        widened, scales = f"{rows}.widened", f"{rows}.scales"
        table = self._add(f"{owner}.rows", weight.codes, owner)
        table_scales = self._add(f"{owner}.row_scales", weight.scales, owner)
        self.nodes += [
            helper.make_node("Gather", [table, ids], [rows], **axis),
            helper.make_node("Cast", [rows], [widened], to=TensorProto.FLOAT),
            helper.make_node("Gather", [table_scales, ids], [scales], **axis),
            _like(node, "Mul", [widened, scales]),
        ]

    def _add(self, name: str, values: NDArray[Any], owner: str) -> str:
        """Add a tensor to the file and return its name; it is written once, however many operators read it."""
        if name not in self.made:
            self.made[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
            self.sizes[owner] = self.sizes.get(owner, 0) + values.nbytes
        return name


def _flipped(node: NodeProto) -> bool:
    """Return whether a Gemm transposes its second input. Raises Unsupported for one that does more than x @ W + b."""
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    scaled = settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0
    if settings.get("transA") or scaled or len(node.input) < 3:
        raise Unsupported(f"{node.name}: no form of this Gemm for what is stored")
    return bool(settings.get("transB"))


def _like(node: NodeProto, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> NodeProto:
    """Make an operator of type ``kind`` that has the name and the outputs of ``node``."""
    return helper.make_node(kind, inputs, list(node.output), name=node.name, domain=domain, **attributes)


def _blocks(codes: NDArray[np.uint8], size: int, fill: int) -> NDArray[np.uint8]:
    """Return ``codes`` [out, in] as [out, blocks, size]; the last block is filled up with ``fill``."""
    outputs, inputs = codes.shape
    padded = np.pad(codes, ((0, 0), (0, -inputs % size)), constant_values=fill)
    return padded.reshape(outputs, -1, size)


def _nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack two values to a byte along the last axis, the first in the low half."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    packed: NDArray[np.uint8] = np.bitwise_or(values[..., ::2], values[..., 1::2] << 4, dtype=np.uint8)
    return packed
