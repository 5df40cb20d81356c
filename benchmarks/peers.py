"""The same jobs done by libraries that users would otherwise take, as recipes of benchmarks/compression.py.

Every library works on weights widened to fp32, rounds block linears only (embeddings and head stay as they are) with
groups of 64 where it lets us choose, and gets the same calibration rows where it takes any. What it rounded is read
back as 16-bit weights: this compares quality; kernels are compared in benchmarks/kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from objectives.calibration.moments import sample_rows
from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import LoadedModel
from objectives.quantization.gptq import Gptq

Change = Callable[[LoadedModel, Statistics], None]


@dataclass(frozen=True)
class Peer:
    """A recipe's pruner or quantizer that leaves the work to ``change``; ``package``: what has to be installed."""

    package: str
    change: Change = field(compare=False)

    @property
    def installed(self) -> bool:
        whole, _, _ = self.package.partition(".")  # find_spec raises where the parent of a package is missing
        return find_spec(whole) is not None and find_spec(self.package) is not None

    def prune_(self, model: LoadedModel, statistics: Statistics) -> None:
        self.change(model, statistics)

    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Cpu) -> None:
        self.change(model, statistics)
        Gptq().quantize_(model, statistics, device)


def torch_pruning(ratio: float, importance: str) -> Peer:
    """FFN channels in groups of 32, the residual width left alone; ``importance``: magnitude or taylor."""

    def change(model: LoadedModel, statistics: Statistics) -> None:
        import torch_pruning as tp

        module = model.module.float().requires_grad_(True)
        units = [(block, unit) for block in model.blocks() for unit in block.units if unit.kind == "ffn"]
        weights = sum(block.parameters for block in model.blocks())
        ffn = sum(unit.parameters * unit.count for _, unit in units)
        free = {block.linear(path) for block, unit in units for path, _ in unit.producers}
        kept = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Embedding) and part not in free]
        ids = [batch for part in sample_rows(statistics.domains, 8192) for batch in part.split(8)]
        with torch.inference_mode(False), torch.enable_grad():
            if importance == "taylor":
                for rows in ids:
                    logits = module(rows, use_cache=False).logits[:, :-1].flatten(0, 1)
                    cross_entropy(logits, rows[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            scores = {
                "magnitude": tp.importance.GroupMagnitudeImportance,
                "taylor": tp.importance.GroupTaylorImportance,
            }
            pruner = tp.pruner.BasePruner(
                module, ids[0][:1, :16].clone(), scores[importance](), global_pruning=importance == "taylor",
                pruning_ratio=ratio * weights / ffn, ignored_layers=kept, round_to=32,
                forward_fn=lambda module, rows: module(rows, use_cache=False).logits, output_transform=Tensor.sum,
            )  # fmt: skip
            pruner.step()
        module.requires_grad_(False).to(torch.bfloat16)

    return Peer("torch_pruning", change)


def layer_by_layer(package: str, rounded: Callable[[nn.Sequential], Tensor]) -> Peer:
    """``rounded``: given a linear alone in a container, what the library makes of its weight [out, in]."""

    def change(model: LoadedModel, _statistics: Statistics) -> None:
        for block in model.blocks():
            for path in block.stack.block_linears:
                linear = block.linear(path)
                alone = nn.Linear(linear.in_features, linear.out_features, bias=False)
                with torch.inference_mode(False):
                    alone.weight = nn.Parameter(linear.weight.detach().float().clone(), requires_grad=False)
                    weight = rounded(nn.Sequential(alone)).detach()
                linear.weight = nn.Parameter(weight.to(linear.weight.dtype), requires_grad=False)

    return Peer(package, change)


def quanto(holder: nn.Sequential) -> Tensor:
    """qint4 of optimum-quanto; it chooses the group (128 where that divides the width, else 96)."""
    from optimum.quanto import freeze, qint4, quantize

    quantize(holder, weights=qint4)
    freeze(holder)
    return holder[0].weight.dequantize()


def torchao(bits: int) -> Callable[[nn.Sequential], Tensor]:
    """Weight-only integers with HQQ's scales, asymmetric, groups of 64."""

    def rounded(holder: nn.Sequential) -> Tensor:
        from torchao.quantization import IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerGroup
        from torchao.quantization.quant_primitives import MappingType

        quantize_(holder, IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(64), mapping_type=MappingType.ASYMMETRIC,
        ))  # fmt: skip
        return holder[0].weight.dequantize()

    return rounded


def bitsandbytes(holder: nn.Sequential) -> Tensor:
    """NF4, blocks of 64."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(holder[0].weight.data.contiguous(), blocksize=64, quant_type="nf4")
    return dequantize_4bit(codes, state)


def nncf(**settings: Any) -> Peer:
    """NNCF's weight compression to asymmetric int4 in groups of 64; what it rounds stays inside its hooks."""

    def change(model: LoadedModel, statistics: Statistics) -> None:
        import nncf as library

        rows = [batch for batches in statistics.domains.values() for batch in batches]
        with torch.inference_mode(False):
            model.module = library.compress_weights(
                model.module.float(), mode=library.CompressWeightsMode.INT4_ASYM, group_size=64, ratio=1.0,
                ignored_scope=library.IgnoredScope(patterns=[".*lm_head.*", ".*embed.*"]), subset_size=len(rows),
                dataset=library.Dataset(rows, lambda ids: {"input_ids": ids, "use_cache": False}), **settings,
            )  # fmt: skip

    return _Whole("nncf", change)


def auto_round(iters: int, group: int = 64, symmetric: bool = False) -> Peer:
    """AutoRound's sign descent on every block's output, over rows of 256 tokens of both domains."""

    def change(model: LoadedModel, statistics: Statistics) -> None:
        from auto_round import AutoRound

        rows = torch.cat([torch.cat([part.flatten() for part in parts]) for parts in statistics.domains.values()])
        rows = rows[: rows.numel() // 256 * 256].view(-1, 256)
        with torch.inference_mode(False), torch.enable_grad():
            batches = list(rows.clone().split(8))
            rounder = AutoRound(
                model.module, model.tokenizer, scheme="W4A16", group_size=group, sym=symmetric, iters=iters,
                dataset=batches, nsamples=len(rows), seqlen=256, batch_size=8, device_map="cpu",
            )  # fmt: skip
            module, _ = rounder.quantize()
        model.module = module.requires_grad_(False).to(torch.bfloat16)

    return Peer("auto_round", change)


class _Whole(Peer):
    """What the library returns runs as it is: our packing would replace its linears."""

    def quantize_(self, model: LoadedModel, statistics: Statistics, device: Cpu) -> None:
        self.change(model, statistics)
