"""The model that is compressed: a transformer with the map of its blocks. A runner runs it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any

from objectives.errors import Unsupported
from objectives.models.anatomy import Family, Stack
from objectives.models.batch import Batch, batch_of
from objectives.models.blocks import Block
from objectives.models.families import family_of, undescribed
from objectives.settings import asks_to_prune

if TYPE_CHECKING:
    from torch import Tensor, nn

    from objectives.types import Head, Note


@dataclass
class LoadedModel:
    """A transformer with its tokenizer and the map of its blocks, which keep the names of the dense model.

    ``layers``: by stack, which of the dense model's blocks are left, where some are gone. ``widths``: by (block,
    consumer), how many sets a pruned unit kept; both are the pruning manifest. ``kept_inputs``: by the same key, the
    input channels that the consumer still reads; ``kept_outputs``: by (block, producer), the rows that it still writes.
    ``predicted_loss``: what the methods expect to have cost, nats per token; NaN where one cannot tell.
    ``pattern``: where masks left zeros, ``2:4`` or ``unstructured``. ``simulated``: some weights are only rounded or
    masked, and stored in no fewer bits. ``notes``: what was not done as asked. ``row``: what describes the
    architecture where that is none of ours. ``dense_config``: the config before any block went, None where none did.
    """

    module: Any
    tokenizer: Any
    head: Head
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    widths: dict[tuple[str, str], int] = field(default_factory=dict)
    kept_inputs: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    kept_outputs: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    predicted_loss: float = 0.0
    simulated: bool = False
    pattern: str = ""
    notes: list[Note] = field(default_factory=list)
    row: Family | None = None
    dense_config: Any = None

    @cached_property
    def family(self) -> Family:
        """Return the description of the architecture: where each block keeps its projections."""
        row = self.row or family_of(self.module.config.model_type)
        return row.found_in(self.module.base_model)

    @property
    def vocabulary(self) -> int:
        """Return the number of token ids."""
        return int(self.module.config.vocab_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes of a classifier; none of another model."""
        names = self.module.config.id2label if self.head in ("classifier", "token_classifier") else {}
        return tuple(str(names[place]) for place in sorted(names))

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Return the tokens that end a text, as ``generation_config.json`` says; none of a model that writes none."""
        said = getattr(getattr(self.module, "generation_config", None), "eos_token_id", None)
        return tuple(said) if isinstance(said, (list, tuple)) else () if said is None else (int(said),)

    @property
    def head_dim(self) -> int:
        """Return the channels per attention head of the first stack."""
        return self.family.stacks[0].head_dim(self.module.config)

    def blocks(self) -> Iterator[Block]:
        """Yield the transformer blocks, first to last; an encoder's come before those of its decoder."""
        for stack in self.family.stacks:
            for index in self.layers_of(stack):
                yield self.block(f"{stack.layers}.{index}")

    def layers_of(self, stack: Stack) -> tuple[int, ...]:
        """Return the dense model's indices of the blocks that ``stack`` still has."""
        layers: nn.ModuleList = self.module.base_model.get_submodule(stack.layers)
        return self.layers.get(stack.layers, tuple(range(len(layers))))

    def block(self, name: str) -> Block:
        """Return the block that has this name in the dense model."""
        path, _, index = name.rpartition(".")
        stack = {stack.layers: stack for stack in self.family.stacks}[path]
        module = self.module.base_model.get_submodule(f"{path}.{self.layers_of(stack).index(int(index))}")
        return Block(name, module, stack.of(module), stack.head_dim(self.module.config))

    def inputs(self, batch: Tensor | Batch) -> dict[str, Tensor]:
        """Return the arguments of a forward pass over ``batch``, a tensor of token ids [rows, tokens] or more.

        The encoder of an encoder-decoder reads the ids; its decoder reads the targets, shifted by one token, or the
        ids themselves where there are none.
        """
        rows = batch_of(batch)
        typed = {} if rows.types is None else {"token_type_ids": rows.types}
        if self.head != "seq2seq":
            return {"input_ids": rows.ids, **typed}
        targets = rows.ids if rows.targets is None else rows.targets
        shift = getattr(self.module, "prepare_decoder_input_ids_from_labels", None)
        if shift is not None:
            return {"input_ids": rows.ids, "decoder_input_ids": shift(labels=targets)}
        later = targets.roll(1, dims=1)
        later[:, 0] = self.module.config.decoder_start_token_id
        return {"input_ids": rows.ids, "decoder_input_ids": later}

    def copy(self) -> LoadedModel:
        """Return an independent copy, to be compressed."""
        return LoadedModel(copy.deepcopy(self.module), self.tokenizer, self.head, row=self.row)

    def sharing(self) -> LoadedModel:
        """Return a copy with modules and parameters of its own, which hold the same tensors.

        Blocks may be taken out of it and parameters given other tensors; those that are tied stay so.
        """
        from torch import nn

        held: dict[int, Any] = {id(buffer): buffer for buffer in self.module.buffers()}
        for one in self.module.parameters():
            held[id(one)] = nn.Parameter(one.detach(), requires_grad=one.requires_grad)
        return LoadedModel(copy.deepcopy(self.module, held), self.tokenizer, self.head, row=self.row)


def require_units(model: LoadedModel, pruner: object) -> None:
    """Raise Unsupported where ``pruner`` is to remove channels and no row describes which of them belong together."""
    if asks_to_prune(pruner) and not any(stack.attentions or stack.ffns for stack in model.family.stacks):
        raise Unsupported(f"pruning: {undescribed(model.module.config.model_type, model.module.config.to_dict())}")


def without_pooler(model_class: Any) -> dict[str, bool]:
    """Return the arguments with which ``model_class`` leaves out its pooler; none where it has no such argument."""
    known = signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


def built_with(module: Any) -> dict[str, bool]:
    """Return the arguments, besides the config, with which the class of ``module`` builds such a model again."""
    return without_pooler(type(module)) if getattr(module, "pooler", None) is None else {}
