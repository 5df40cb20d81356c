"""How fast each storage width multiplies on this CPU, by number of rows: the figures behind the kernel choice.

    python benchmarks/kernels.py [threads]

Prints median microseconds of one linear, and for each width the kernel and the unpacked path apart. Everything is
interleaved: one sample of every column per round, so that a busy machine disturbs all of them alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from objectives.packing.bf16 import Bf16Linear
from objectives.packing.capability import cpu_kernels
from objectives.packing.int4 import Int4Linear
from objectives.packing.int8 import Int8Linear
from objectives.quantization.grid import round_to_grid

ROWS = (1, 4, 8, 16, 64, 256, 1024)
WIDTHS = ((576, 1536), (1536, 576))
ROUNDS = 21


def columns(inputs: int, outputs: int, rows: int) -> dict[str, Callable[[], torch.Tensor]]:
    """One call per column, all on the same weight."""
    linear = torch.nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
    wide, narrow = torch.randn(rows, inputs), torch.randn(rows, inputs).bfloat16()
    x = wide.to(cpu_kernels().compute_dtype)
    integers = torch.randint(-127, 128, (rows, inputs), dtype=torch.int8)
    codes = round_to_grid(linear.weight, torch.ones(inputs), 4, 64, (1.0,))
    int8 = Int8Linear.from_weight(linear.weight, None).repack_()
    int4 = Int4Linear.from_codes(codes.values, codes.scale, codes.zero, None)
    bf16 = Bf16Linear.from_linear(linear)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "fp32": lambda: linear(wide),
        "torch bf16": lambda: torch.nn.functional.linear(narrow, bf16.weight),
        "_int_mm": lambda: torch._int_mm(integers, int8.codes.t()),
        "16 bit": lambda: bf16(x),
        "8 bit": lambda: int8(x),
        "4 kernel": lambda: int4.kernel(x),
        "4 unpacked": lambda: int4.unpacked(x),
        "4 bit": lambda: int4(x),
    }
    if rows <= 16:  # _int_mm refuses fewer than 17 rows on some devices, and is a reference loop here anyway
        calls.pop("_int_mm")
    return calls


def medians(calls: dict[str, Callable[[], torch.Tensor]]) -> dict[str, float]:
    """Microseconds per call."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - start)
    return {name: sorted(values)[ROUNDS // 2] * 1e6 for name, values in samples.items()}


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; us"
    )
    for inputs, outputs in WIDTHS:
        for rows in ROWS:
            found = medians(columns(inputs, outputs, rows))
            print(f"{inputs}->{outputs} x{rows:<5}" + "  ".join(f"{name} {us:.0f}" for name, us in found.items()))


if __name__ == "__main__":
    main()
