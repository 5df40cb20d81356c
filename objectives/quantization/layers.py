"""The walk that all quantisers share: a method rounds every block linear, and the device packs it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from objectives.calibration.moments import Moment
from objectives.calibration.statistics import RecalibratedStatistics, Statistics
from objectives.errors import NoKernel, Unsupported
from objectives.models import LoadedModel
from objectives.models.layers import Layer, layers_of
from objectives.packing.codes import Codes
from objectives.protocols.running import Device
from objectives.quantization.layer_codes import codes_of
from objectives.quantization.rounding import Rounding
from objectives.quantization.sensitivity import error_of, sensitivity_of
from objectives.types import Note, NoteCode, Scheme


@dataclass(frozen=True)
class Sketch:
    """A rounding for models without values: its codes have the right shapes and no content."""

    group_size: int
    scales_inputs: bool = False

    def round(self, weight: Tensor, moment: Moment, bits: int, group_size: int) -> Codes:
        """Return codes for ``weight`` [out, in], of the right shapes and types and without values."""
        outputs, inputs = weight.shape
        scale = weight.new_empty(outputs, inputs // group_size)
        values = weight.new_empty(outputs, inputs, dtype=torch.int32)
        return Codes(values, scale, scale, bits, weight.new_empty(inputs) if self.scales_inputs else None)


def recollected(model: LoadedModel, statistics: Statistics, device: Device, tokens: int) -> Statistics:
    """Return statistics with moments of ``model`` as pruning left it, from ``tokens`` tokens per domain."""
    running = replace(model, module=copy.deepcopy(model.module))
    device.to_device_(running)
    return RecalibratedStatistics(statistics, running, tokens)


@dataclass(frozen=True)
class WeightFormat:
    """The form in which the weights of a model are stored.

    ``bits``: width of all block linears, or widths by :attr:`Layer.key`; ``rounding``: how a width below 8 is rounded;
    ``scheme``: what 8 bits means; ``embeddings``: bits of the embedding and the head. With ``simulate`` a width below 8
    that no kernel of the device stores is rounded, but stored in 16 bits.
    """

    bits: int | Mapping[tuple[str, str], int]
    rounding: Rounding
    scheme: Scheme
    embeddings: int = 16
    simulate: bool = False

    def width(self, layer: Layer, device: Device) -> int:
        """Return the bits of a layer. Raises Unsupported for a width that ``device`` does not store."""
        width = self.bits if isinstance(self.bits, int) else self.bits[layer.key]
        if width not in device.bits and not (self.simulate and width < 8):
            raise Unsupported(f"{width} bits on {device.name}: choose from {sorted(device.bits)}")
        return width


def store_(
    model: LoadedModel,
    statistics: Statistics,
    device: Device,
    form: WeightFormat,
    predict: bool = False,
    rounded: Mapping[tuple[tuple[str, str], int], Codes] | None = None,
) -> None:
    """Replace all block linears by packed ones.

    A layer that fits no kernel below 8 bits stays in 16; that, and a smaller group than the settings ask for, is noted.
    A model whose widths are only simulated is marked. ``predict``: add the predicted loss of the rounding to that of
    the model; it needs calibration and gradients, and leaves the embedding and the head out. ``rounded``: codes that
    are known already, by (:attr:`Layer.key`, bits).
    """
    predict = predict and bool(statistics.domains)
    if form.embeddings != 16:
        device.pack_embeddings_(model, form.embeddings)
    for layer in list(layers_of(model)):
        width = form.width(layer, device)
        codes = (rounded or {}).get((layer.key, width))
        if codes is None and width < 8:
            codes = codes_of(model, statistics, layer, width, form.rounding)
        if width < 16 and (codes is not None or width == 8):
            model.predicted_loss += _predicted(model, statistics, layer, codes, form) if predict else math.nan
        _store_layer_(model, layer, width, codes, device, form)
    if form.bits != 16:
        model.notes.extend(_no_linears(model))
    device.to_device_(model)
    device.arrange_(model)


def _store_layer_(
    model: LoadedModel, layer: Layer, bits: int, codes: Codes | None, device: Device, form: WeightFormat
) -> None:
    """Replace the linears of one layer; ``codes``: the codes of all their outputs, one linear after the other."""
    sparse = model.pattern == "2:4" and form.bits == 16 and device.sparse
    start = 0
    for path, linear in zip(layer.paths, layer.linears):
        name = f"{layer.block.name}.{path}"
        part = None if codes is None else codes.rows(slice(start, start := start + linear.out_features))
        packed = _thinned(model, name, linear, device) if sparse else None
        try:
            packed = packed or _packed(model, linear, bits, part, device, form.scheme)
        except NoKernel as error:
            model.notes.append(_kept(f"{name}: {error}"))
            packed = device.pack(linear, 16, None, form.scheme)
        layer.block.module.set_submodule(path, packed)
        model.notes.extend(_notes(name, linear, bits, part, form.rounding.group_size))


def _predicted(
    model: LoadedModel, statistics: Statistics, layer: Layer, codes: Codes | None, form: WeightFormat
) -> float:
    return sensitivity_of(model, statistics, layer, error_of(layer, codes, form.scheme), form.rounding)


def _thinned(model: LoadedModel, name: str, linear: nn.Linear, device: Device) -> nn.Module | None:
    """Pack a masked linear for a sparse kernel; the model is then no longer simulated.

    Returns None, with a note, where no sparse kernel takes the shape.
    """
    try:
        packed = device.pack_sparse(linear)
    except Unsupported as error:
        model.notes.append(Note(NoteCode.OTHER, f"{name}: {error}, its zeros are multiplied"))
        return None
    model.simulated = False
    return packed


def _packed(
    model: LoadedModel, linear: nn.Linear, bits: int, codes: Codes | None, device: Device, scheme: Scheme
) -> nn.Module:
    if bits < 8 and codes is None:
        return device.pack(linear, 16, None, scheme)
    if codes is not None and bits not in device.bits:
        linear.weight = nn.Parameter(codes.dequantize().to(linear.weight.dtype), requires_grad=False)
        model.simulated = True
        return device.pack(linear, 16, None, scheme)
    return device.pack(linear, bits, codes, scheme)


def _kept(what: str) -> Note:
    return Note(NoteCode.KEPT_IN_16_BITS, f"{what}, kept in 16 bits")


def _no_linears(model: LoadedModel) -> Iterator[Note]:
    """Yield a note for each weight that is no linear's: experts that are one tensor, and convolutions."""
    for block in model.blocks():
        for name, weight in block.module.named_parameters():
            if weight.dim() > 2:
                yield _kept(f"{block.name}.{name}: {weight.dim()} dimensions are no linear")


def _notes(name: str, linear: nn.Linear, bits: int, codes: Codes | None, wanted: int) -> Iterator[Note]:
    """Yield a note where a linear has other bits or groups than the settings ask for."""
    inputs, outputs = linear.in_features, linear.out_features
    if bits < 8 and codes is None:
        yield _kept(f"{name}: {inputs} inputs x {outputs} outputs fit no {bits}-bit kernel")
    elif codes is not None and (size := inputs // codes.scale.shape[1]) != wanted:
        text = f"{name}: {inputs} inputs fit no group of {wanted}, groups of {size} instead"
        yield Note(NoteCode.OTHER, text)
