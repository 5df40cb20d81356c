"""Exports a packed model as a graph of torch.export: an fp32 copy with every size that may vary left open.

The copy has the packed model's widths, and the values that its stored weights stand for. Inputs and outputs are the
same for all engines: an encoder takes ids, an additive mask, and token types where its head reads them; a decoder takes
ids, mask, places, the positions whose logits are wanted, and the cache, and gives logits and the new cache. Masks are
floats: engines are slow on booleans (docs/log.md). Sample sizes are never 0 or 1, which torch.export would take for
constants.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers.cache_utils import DynamicCache, DynamicLayer

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.models.experts import Experts
from objectives.models.heads import encoded
from objectives.packing.embedding import Int8Embedding
from objectives.runtime.engines.masks import HIDDEN
from objectives.runtime.engines.weights import Floats, is_matrix, matrices, owners
from objectives.types import Head

ROWS, TOKENS, PAST = 2, 3, 5
"""Sizes of the sample that is traced."""


@dataclass(frozen=True)
class Exported:
    """An exported model.

    ``program`` takes ``inputs`` in that order, and gives ``outputs``; ``caches``: (heads, width) of every past key and
    value.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    caches: tuple[tuple[int, int], ...] = ()

    @property
    def read(self) -> set[str]:
        """Return the names of the modules whose weights the program reads."""
        self.program.graph.eliminate_dead_code()  # a pooler's, for example
        parameters = self.program.graph_signature.inputs_to_parameters
        read = {parameters[node.name] for node in self.program.graph.nodes if node.name in parameters and node.users}
        return {name.removeprefix("module.").rpartition(".")[0] for name in read}


def fp32_copy(model: LoadedModel) -> nn.Module:
    """Return an independent fp32 copy of ``model`` made of ordinary modules, tied weights tied.

    Raises Unsupported for modules that have no ordinary form.
    """
    stored = dict(matrices(model))
    weights = {
        name: nn.Parameter(torch.from_numpy(matrix.dequantized()), requires_grad=False)
        for name, matrix in stored.items()
    }
    memo: dict[int, Any] = {}
    for name, owner in owners(model).items():
        old = model.module.get_submodule(name)
        memo[id(old)] = _ordinary(name, old, weights[owner])
    copied: nn.Module = copy.deepcopy(model.module, memo)
    return copied.float().eval()


def _ordinary(name: str, old: nn.Module, weight: nn.Parameter) -> nn.Module:
    if isinstance(old, nn.Embedding):
        plain = copy.copy(old)  # its class may scale its vectors
        plain._forward_hooks = OrderedDict()  # those that narrow what it gives
        plain._parameters = {"weight": weight}
        return plain
    if isinstance(old, Int8Embedding):
        if old.factor != 1.0:
            raise Unsupported(f"{name}: an 8-bit embedding that scales its vectors has no form in other runtimes")
        table: nn.Module = nn.Embedding.from_pretrained(weight)  # type: ignore[no-untyped-call]
        return table
    bias = getattr(old, "bias", None)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = weight
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
    return linear


def structure(model: LoadedModel) -> list[Any]:
    """Return what the graph depends on: everything but the values of the matrices."""
    content = hashlib.sha256()
    shapes = {}
    for name, module in model.module.named_modules():
        skipped = {"weight", "codes"} if is_matrix(module) else set()
        if skipped:
            shapes[name] = [int(getattr(module, size, 0)) for size in ("in_features", "out_features")]
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if skipped and key != "bias":
                continue
            content.update(f"{name}.{key}".encode() + tensor.detach().float().contiguous().numpy().tobytes())
    return [model.module.config.to_dict(), model.head, shapes, content.hexdigest(), str(owners(model))]


def export(model: LoadedModel, square: bool = False) -> tuple[Exported, nn.Module]:
    """Trace the fp32 copy of ``model``; return the graph and the copy, whose parameters the graph holds.

    Raises Unsupported.

    ``square``: see :class:`Encoder`.
    """
    if any(isinstance(part, Experts) for part in model.module.modules()):
        raise Unsupported("which experts a token is sent to depends on it; a graph has no form for that, torch has")
    module = fp32_copy(model)
    with torch.no_grad():
        try:
            graph = _decoder(module) if model.head == "causal_lm" else _encoder(module, model.head, square)
        except Unsupported:
            raise
        except Exception as error:  # torch.export raises many types, on what it cannot follow
            first = (str(error).strip().splitlines() or [""])[0]
            raise Unsupported(f"torch.export cannot follow this model: {type(error).__name__}: {first}") from error
    return graph, module


class Encoder(nn.Module):
    """An encoder as engines run it: ids [rows, tokens], additive mask [rows, 1, 1, tokens] -> hidden states or logits.

    A model with a head that reads token types takes them as well [rows, tokens]; ``inputs`` are the names.
    """

    def __init__(self, module: nn.Module, head: Head = "encoder", square: bool = False) -> None:
        """Wrap ``module``. ``square``: expand the mask, for engines that take none with one row for all tokens."""
        super().__init__()
        self.module, self.head, self.square = module, head, square
        self.inputs: tuple[str, ...] = ("ids", "mask", "types") if _reads_types(module, head) else ("ids", "mask")
        self.turns = any(name.endswith("rotary_emb") for name, _ in module.named_modules())
        config: Any = module.config
        is_local = "sliding_attention" in (getattr(config, "layer_types", None) or ())
        self.window: int | None = config.sliding_window if is_local else None

    def sample(self, rows: int, tokens: int, dtype: torch.dtype = torch.int64) -> tuple[Tensor, ...]:
        """Return inputs of that size, to be traced."""
        ids = torch.arange(rows * tokens).view(rows, tokens).to(dtype)
        return (ids, torch.zeros(rows, 1, 1, tokens), torch.zeros_like(ids))[: len(self.inputs)]

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Return what ``Runner.encode`` returns."""
        mask = mask.expand(-1, -1, ids.shape[1], -1) if self.square else mask
        # One row of rotary tables for all rows of a batch is more than ONNX's operator takes.
        places = {"position_ids": torch.arange(ids.shape[1]).expand(ids.shape)} if self.turns else {}
        typed = {} if types is None else {"token_type_ids": types}
        return encoded(self.head, self.module(input_ids=ids, attention_mask=self._masks(ids, mask), **places, **typed))

    def _masks(self, ids: Tensor, mask: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the mask; one for each kind of attention where some layers read a window (transformers cuts none)."""
        if self.window is None:
            return mask
        places = torch.arange(ids.shape[1])
        far = (places[:, None] - places[None, :]).abs() > self.window
        return {"full_attention": mask, "sliding_attention": mask + far.float() * float(HIDDEN)}


class Decoder(nn.Module):
    """A decoder as engines run it: one pass, which reads new tokens and gets its cache handed in and out.

    ids, places [rows, tokens], mask [rows, 1, tokens, past + tokens], wanted [positions], past keys and values by layer
    -> logits [rows, positions, vocabulary], all keys and values by layer.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, ids: Tensor, mask: Tensor, places: Tensor, wanted: Tensor, past: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the logits of the wanted positions, and the keys and values of past and new tokens by layer."""
        output = self.module(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=_cache(self.module, past),
            use_cache=True, logits_to_keep=wanted,
        )  # fmt: skip
        return output.logits, [(layer.keys, layer.values) for layer in output.past_key_values.layers]


def _cache(module: Any, past: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    """Return a cache that holds ``past``; its constructor would concatenate, and fail on tensors without a length."""
    cache = DynamicCache(config=module.config)
    layers: list[Any] = cache.layers
    for layer, (keys, values) in zip(layers, past, strict=True):
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
    return cache


def _reads_types(module: nn.Module, head: Head) -> bool:
    """Return whether token types matter to the model; a bare encoder is given none."""
    config: Any = module.config
    known = "token_type_ids" in signature(module.forward).parameters
    return head != "encoder" and known and getattr(config, "type_vocab_size", 0) > 1


def _encoder(module: nn.Module, head: Head, square: bool) -> Exported:
    encoder, free = Encoder(module, head, square), Dim.DYNAMIC
    sample, shapes = encoder.sample(ROWS, TOKENS), ({0: free, 1: free}, {0: free, 3: free}, {0: free, 1: free})
    program = torch.export.export(encoder, sample, dynamic_shapes=shapes[: len(sample)], strict=False)
    return Exported(program, encoder.inputs, ("hidden" if head == "encoder" else "logits",))


def _decoder(module: Any) -> Exported:
    ids = torch.arange(ROWS * PAST).view(ROWS, PAST)
    layers = module(input_ids=ids, use_cache=True).past_key_values.layers
    if not all(type(layer) is DynamicLayer for layer in layers):
        raise Unsupported(f"caches of {type(layers[-1]).__name__} are not converted")
    past = [(layer.keys, layer.values) for layer in layers]
    places = torch.arange(PAST, PAST + TOKENS).expand(ROWS, TOKENS).contiguous()
    mask = torch.zeros(ROWS, 1, TOKENS, PAST + TOKENS)
    free = Dim.DYNAMIC
    rows, kept = {0: free, 1: free}, {0: free, 2: free}
    program = torch.export.export(
        Decoder(module), (ids[:, :TOKENS].contiguous(), mask, places, torch.tensor([0, 2]), past),
        dynamic_shapes=(rows, {0: free, 2: free, 3: free}, rows, {0: free}, [(kept, kept)] * len(past)), strict=False,
    )  # fmt: skip
    names = [f"{index}.{kind}" for index in range(len(past)) for kind in ("keys", "values")]
    inputs = ("ids", "mask", "places", "wanted", *(f"past.{name}" for name in names))
    outputs = ("logits", *(f"present.{name}" for name in names))
    caches = tuple((int(part.shape[1]), int(part.shape[3])) for pair in past for part in pair)
    return Exported(program, inputs, outputs, caches)


class WeightPlaceholders:
    """Finds a model's matrices in a converted graph by their bytes: as they are, or transposed."""

    def __init__(self, model: LoadedModel, exported: Exported, module: nn.Module) -> None:
        """Note the content of every matrix that the graph reads. Raises Unsupported for two matrices of one content.

        ``module``: the fp32 copy, whose values the graph holds.
        """
        owner = owners(model)
        read = {owner[name] for name in exported.read if name in owner}
        self._names: dict[bytes, tuple[str, bool]] = {}
        self._open: set[str] = set()
        for name in sorted(read):
            weight: Floats = module.get_submodule(name).weight.detach().numpy()  # type: ignore[operator]
            for transposed, values in ((False, weight), (True, weight.T)):
                key = _content(values)
                if self._names.setdefault(key, (name, transposed))[0] != name:
                    raise Unsupported(
                        f"{name} and {self._names[key][0]} hold the same values: one could not be told apart"
                    )
            self._open.add(name)

    def find(self, values: Floats) -> tuple[str, bool] | None:
        """Return whose matrix ``values`` are, and whether transposed; None where they are no matrix of the model."""
        matrix = self._names.get(_content(values)) if values.ndim == 2 else None
        if matrix is not None:
            self._open.discard(matrix[0])
        return matrix

    def require_all(self) -> None:
        """Raise Unsupported where a matrix was not found: it could not be replaced."""
        if self._open:
            raise Unsupported(f"the converted graph does not hold {min(self._open)} as it is")


def _content(values: Floats) -> bytes:
    flat = hashlib.sha256(repr(values.shape).encode())
    flat.update(values.tobytes())
    return flat.digest()
