"""Converts models to LiteRT's graphs: whole, with their weights, for one size of batch and text."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from objectives.errors import Unsupported, said
from objectives.runtime.engines.graph_export import Encoder, fp32_copy
from objectives.runtime.engines.silence import keep_streams_open, silence
from objectives.runtime.engines.weights import Rounded, block_linears, matrices

if TYPE_CHECKING:
    from objectives.models import LoadedModel


def convert(model: LoadedModel, rows: int, tokens: int, rounds: bool) -> bytes:
    """Convert ``model`` for inputs [rows, tokens] and return the bytes of its file.

    ``rounds``: whether 8-bit layers round their inputs as well. Raises Unsupported.
    """
    encoder = Encoder(fp32_copy(model), model.head).eval()
    sample = encoder.sample(rows, tokens, torch.int32)
    with silence():
        import litert_torch

        keep_streams_open()
        try:
            converted = litert_torch.convert(encoder, sample)
        except Unsupported:
            raise
        except Exception as error:  # its passes raise what they like
            raise Unsupported(f"LiteRT cannot convert this model: {said(error)}") from error
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "model.tflite"
            converted.export(str(file))
            operations = _rounded(model)
            return _quantized(file, operations, rounds) if operations else file.read_bytes()


def _rounded(model: LoadedModel) -> dict[str, int]:
    """Return the operations whose weights have 8 bits, each with the fewest weights that it must have to be rounded.

    They are all layers, and the embedding where it is stored in 8 bits. Smaller tables, of positions and types, stay as
    they are. Raises Unsupported where some layers have 8 bits and others have not.
    """
    names = block_linears(model)
    layers = {isinstance(weight, Rounded) for name, weight in matrices(model) if name in names}
    if len(layers) > 1:
        raise Unsupported("LiteRT rounds all layers or none: mixed widths are not written")
    table = model.module.get_input_embeddings()
    embedded = any(
        isinstance(weight, Rounded) for name, weight in matrices(model) if model.module.get_submodule(name) is table
    )
    operations = {"FULLY_CONNECTED": 0} if layers == {True} else {}
    return {**operations, "EMBEDDING_LOOKUP": _size(table)} if embedded else operations


def _size(table: Any) -> int:
    return int((table.codes if hasattr(table, "codes") else table.weight).numel())


def _quantized(file: Path, operations: Mapping[str, int], rounds: bool) -> bytes:
    from ai_edge_quantizer import quantizer, recipe

    base: list[dict[str, Any]] = recipe.dynamic_wi8_afp32() if rounds else recipe.weight_only_wi8_afp32()
    worker = quantizer.Quantizer(str(file))
    plain = base[0]["op_config"]
    worker.load_quantization_recipe(
        [
            {**base[0], "operation": operation, "op_config": {**plain, "min_weight_elements": fewest}}
            for operation, fewest in operations.items()
        ]
    )
    return bytes(worker.quantize().quantized_model)
