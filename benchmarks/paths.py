"""Which path each packed linear takes by rows, and what it gains over 16 bits: SmolLM2's shapes, one and two threads.

    python benchmarks/paths.py [--check] [--threads 1 2] [--prompts]

Prints, for each class, shape and number of rows, the ratio of the 16 bits' time to that of every path, rounding and
scaling included; the path that is taken has a star. Then the same with a copy of W in 16 bits (``+16``:
``runtime.prefill_copy=true``). The clock is the CPU time of the calling thread, everything takes turns, and ratios are
medians over pairs, so a busy machine does. The paths are those that were measured in ``$PARETUNE_CACHE``, or are
measured now. ``--check`` exits 1 and names every path that is slower than .97 of 16 bits while another one is faster by
more than a tenth; where there is a copy, every one that is slower than .97. Another CPU can be had in part:
``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2`` (the flags that choose our rules stay those of the processor).
``--prompts`` reads whole prompts instead: SmolLM2 in 8 and 4 bits with a copy over 16 bits (`paretune fetch
smollm2-135m`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from itertools import product

import torch
from speeds import DENSE, path_ratios, prefill

from objectives.calibration.statistics import Statistics
from objectives.devices.cpu import Cpu
from objectives.models import Checkpoint
from objectives.packing.bf16 import Bf16Linear
from objectives.packing.int4 import Int4Linear
from objectives.packing.int8 import Int8Linear, Int8WeightLinear
from objectives.packing.linear import COPIED, PackedLinear
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.runtime.torch import Torch

SHAPES = ((576, 192), (576, 576), (576, 1536), (1536, 576))
ROWS = (1, 8, 32, 64, 256, 1024)
PROMPTS = ((1, 8), (1, 32), (1, 64), (1, 128), (1, 256), (8, 32), (4, 256))
CLASSES: tuple[type[PackedLinear], ...] = (Int8Linear, Int8WeightLinear, Int4Linear)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", action="store_true")
    asked = parser.parse_args()
    wrong = []
    for threads in asked.threads:
        Cpu(threads=threads).start()
        print(f"{torch.backends.cpu.get_cpu_capability()}, {threads} threads")
        if asked.prompts:
            wrong += prompts()
            continue
        for kind in CLASSES:
            for (inputs, outputs), copied in product(SHAPES, (False, True)):
                wrong += lines(kind, inputs, outputs, copied)
    print(*wrong or ["no path is slower than .97 of 16 bits while a faster one is at hand"], sep="\n")
    sys.exit(asked.check and bool(wrong))


def lines(kind: type[PackedLinear], inputs: int, outputs: int, copied: bool) -> list[str]:
    """Print a line for every number of rows, and return what is wrong; ``copied``: W is held in 16 bits as well."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    linear, half = kind.sample(weight), torch.nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
    half.weight.copy_(weight)
    narrow = Bf16Linear.from_linear(half).block_()
    linear = linear.repack_().copy_() if copied else linear.repack_()
    linear.settle()
    wrong = []
    with torch.inference_mode():
        for rows in ROWS:
            ratios, taken = path_ratios(linear, narrow, rows, 11), linear.path(rows)
            text = "  ".join(f"{name}{'*' * (name == taken)} {ratio:.2f}" for name, ratio in ratios.items())
            name = kind.__name__ + "+16" * copied
            print(f"{name:19} {inputs:>4} -> {outputs:<4} x{rows:<4}  {text}", flush=True)
            best = {taken, max(ratios, key=ratios.__getitem__)}  # once more, without those that empty the caches
            if is_wrong(ratios, taken) and is_wrong(ratios := path_ratios(linear, narrow, rows, 301, [*best]), taken):
                wrong.append(f"{name} {inputs}->{outputs} x{rows}: {taken} {ratios[taken]:.3f}")
    return wrong


def prompts() -> list[str]:
    """Print how fast whole prompts are read, and return those that are slower than .97 of 16 bits."""
    source, device, models = Checkpoint(path="asset:smollm2-135m", head="causal_lm").load(), Cpu(), {}
    for name, bits in ((DENSE, 16), ("8 bits", 8), ("4 bits", 4)):
        models[name] = source.copy()
        RoundToNearest(bits=bits, predicts=False).quantize_(models[name], Statistics(models[name], {}), device)
        device.arrange_(models[name])
        if bits < 16:
            models[f"{name}+16"] = copied = Torch(prefill_copy=True).arranged(models[name])
            assert copied is not models[name]
    wrong = []
    for rows, tokens in PROMPTS:
        found = prefill(models, rows, tokens)
        print(f"{rows} x {tokens}: " + "  ".join(f"{name} {ratio:.3f}" for name, ratio in found.items()), flush=True)
        for name in [name for name in found if "+" in name and found[name] < 0.97]:  # once more, beside 16 bits alone
            again = prefill({DENSE: models[DENSE], name: models[name]}, rows, tokens)[name]
            wrong += [f"{name}, {rows} x {tokens}: {again:.3f}"] if again < 0.97 else []
    return wrong


def is_wrong(ratios: Mapping[str, float], taken: str) -> bool:
    """Whether the path that is taken is slower than 16 bits while another one, or the copy, would not be."""
    return ratios[taken] < 0.97 and (taken == COPIED or max(ratios.values()) > 1.1 * ratios[taken])


if __name__ == "__main__":
    main()
