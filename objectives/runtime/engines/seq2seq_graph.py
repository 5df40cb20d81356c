"""Exports an encoder-decoder as two graphs: one that reads sources, and one that writes.

The reader takes ids and an additive mask of sources, and gives the keys and values of every cross-attention: all that
the decoder needs of a source, computed once. The writer is a decoder as all others (:mod:`.graph_export`), which also
takes these keys and values and the mask of the sources. Its rows have equal lengths, so it counts places by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from typing_extensions import override

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines.folder import HALVES
from objectives.runtime.engines.graph_export import PAST, ROWS, TOKENS, Exported, fp32_copy

SOURCE = 7
"""Tokens of the sample's sources."""

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Keys and values by layer."""


class Reader(nn.Module):
    """Reads sources: ids [rows, tokens], mask [rows, 1, 1, tokens] -> keys and values of the cross-attentions."""

    def __init__(self, module: nn.Module, square: bool) -> None:
        """Wrap ``module``; ``square``: as that of :class:`objectives.runtime.engines.graph_export.Encoder`."""
        super().__init__()
        self.module, self.square = module, square

    def forward(self, ids: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values [rows, heads, tokens, width] by layer; the rest of the decoder is left out."""
        module: Any = self.module
        states = module.get_encoder()(input_ids=ids, attention_mask=_expanded(mask, ids) if self.square else mask)
        cache = EncoderDecoderCache(Cache(layer_class_to_replicate=_First), Cache(layer_class_to_replicate=_First))
        module(
            decoder_input_ids=ids[:, :1], encoder_outputs=states, attention_mask=mask, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        return _pairs(cache.cross_attention_cache)


class _First(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of a cache that was empty: nothing is joined to what comes, for which engines have no form."""

    @override
    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = key_states, value_states
        return key_states, value_states


class Writer(nn.Module):
    """Makes one pass of a decoder, which gets its cache handed in and out.

    ids [rows, tokens], mask [rows, 1, tokens, past + tokens], wanted [positions], mask of the sources, keys and values
    of the sources by layer, past ones by layer -> logits [rows, positions, vocabulary], all keys and values by layer.
    """

    def __init__(self, module: nn.Module, square: bool) -> None:
        super().__init__()
        self.module, self.square = module, square

    def forward(
        self, ids: Tensor, mask: Tensor, wanted: Tensor, source_mask: Tensor, source: Pairs, past: Pairs
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the logits of the wanted positions, and the keys and values of past and new tokens by layer."""
        module: Any = self.module
        source_mask = _expanded(source_mask, ids) if self.square else source_mask
        states = source[0][0][:, 0]  # of their shape alone something is read
        cache = EncoderDecoderCache(_cache(module, past), _cache(module, source))
        head = module.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _head, inputs: inputs[0][:, wanted])
        try:
            output = module(
                decoder_input_ids=ids, decoder_attention_mask=mask, encoder_outputs=BaseModelOutput(states),
                attention_mask=source_mask, past_key_values=cache, use_cache=True,
            )  # fmt: skip
        finally:
            hook.remove()
        return output.logits, _pairs(output.past_key_values.self_attention_cache)


def _expanded(mask: Tensor, ids: Tensor) -> Tensor:
    return mask.expand(-1, -1, ids.shape[1], -1)


def _cache(module: Any, past: Pairs) -> DynamicCache:
    """Return a cache that holds ``past``; see :mod:`.graph_export`."""
    cache = DynamicCache(config=module.config)
    grows: Any = DynamicLayer  # has no types; the config may count another stack's layers
    layers: list[Any] = [grows() for _ in past]
    cache.layers = layers
    for layer, (keys, values) in zip(layers, past, strict=True):
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
    return cache


def _pairs(cache: Any) -> list[tuple[Tensor, Tensor]]:
    return [(layer.keys, layer.values) for layer in cache.layers]


def halves(model: LoadedModel, square: bool = False) -> tuple[dict[str, Exported], nn.Module]:
    """Trace the fp32 copy of ``model``; return both graphs by name, and the copy, whose parameters they hold.

    Raises Unsupported.
    """
    module = fp32_copy(model)
    with torch.no_grad():
        try:
            return dict(zip(HALVES, (_reader(module, square), _writer(module, square)))), module
        except Unsupported:
            raise
        except Exception as error:  # torch.export raises many types, on what it cannot follow
            first = (str(error).strip().splitlines() or [""])[0]
            raise Unsupported(f"torch.export cannot follow this model: {type(error).__name__}: {first}") from error


def _reader(module: Any, square: bool) -> Exported:
    ids = torch.arange(ROWS * SOURCE).view(ROWS, SOURCE)
    free = Dim.DYNAMIC
    program = torch.export.export(
        Reader(module, square), (ids, torch.zeros(ROWS, 1, 1, SOURCE)),
        dynamic_shapes=({0: free, 1: free}, {0: free, 3: free}), strict=False,
    )  # fmt: skip
    _drop_unread_(program)
    return Exported(program, ("ids", "mask"), _names("source", len(program.graph_signature.user_outputs) // 2))


def _drop_unread_(program: ExportedProgram) -> None:
    """Remove what no output follows from: checks, and all that the decoder made of its first token."""
    for node in reversed(list(program.graph.nodes)):
        if node.op == "call_function" and not node.users:
            program.graph.erase_node(node)


def _writer(module: Any, square: bool) -> Exported:
    ids = torch.arange(ROWS * SOURCE).view(ROWS, SOURCE)
    begun = module(input_ids=ids, decoder_input_ids=ids[:, :PAST], use_cache=True).past_key_values
    past, source = _pairs(begun.self_attention_cache), _pairs(begun.cross_attention_cache)
    if not all(type(layer) is DynamicLayer for layer in begun.self_attention_cache.layers):
        raise Unsupported("only caches that grow are converted")
    mask = torch.zeros(ROWS, 1, TOKENS, PAST + TOKENS)
    free = Dim.DYNAMIC
    kept = {0: free, 2: free}
    program = torch.export.export(
        Writer(module, square),
        (ids[:, :TOKENS].contiguous(), mask, torch.tensor([0, 2]), torch.zeros(ROWS, 1, 1, SOURCE), source, past),
        dynamic_shapes=(
            {0: free, 1: free}, {0: free, 2: free, 3: free}, {0: free}, {0: free, 3: free},
            [(kept, kept)] * len(source), [(kept, kept)] * len(past),
        ),
        strict=False,
    )  # fmt: skip
    names = ("ids", "mask", "wanted", "source_mask", *_names("source", len(source)), *_names("past", len(past)))
    caches = tuple((int(part.shape[1]), int(part.shape[3])) for pair in past for part in pair)
    return Exported(program, names, ("logits", *_names("present", len(past))), caches)


def _names(prefix: str, layers: int) -> tuple[str, ...]:
    return tuple(f"{prefix}.{index}.{kind}" for index in range(layers) for kind in ("keys", "values"))
