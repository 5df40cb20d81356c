"""Made-up grids with everything that misleads a search, in the form of a recorded one.

Throughput follows a roofline (weights at some bandwidth, operations at some peak, a fixed overhead), with a penalty for
dequantising, one for widths that do not align, and a quirk of each cell that nothing predicts. Accuracy falls with
pruning and rounding, at times rises, and is a set of hits in pairs with the baseline's. Above some peak memory a cell
runs out of it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

EXAMPLES = 2000
RATIOS = tuple(round(0.1 * step, 1) for step in range(8))
BITS = (3.0, 4.0, 8.0, 16.0)
BATCHES = (1, 2, 4, 8, 16, 32)
ACCURACY = 0.85
DROPS = (0.0085, 0.02, 0.04)
"""What floors allow to lose: points of accuracy."""


@dataclass(frozen=True)
class Surface:
    """``nugget``: standard deviation of log speed that is a cell's own; ``rises``: of accuracy; ``memory``: the share
    of cells that fit; ``predicted``: whether what does not fit is refused by prediction, or found out by running out.
    """

    nugget: float = 0.08
    rises: float = 0.005
    memory: float = 0.85
    predicted: bool = False

    def floor(self, seed: int) -> float:
        """Share of the baseline's accuracy that is to be kept: 99 %, 97.6 % or 95.3 %, by seed."""
        drop = float(np.random.default_rng([seed, 1]).choice(DROPS))
        return 1 - drop / ACCURACY

    def recorded(self, seed: int) -> dict[str, Any]:
        """A grid, see :mod:`grids`."""
        rng = np.random.default_rng(seed)
        base = (rng.permutation(EXAMPLES) < round(ACCURACY * EXAMPLES)).astype(float)
        loss = self._losses(rng)
        speed, peak = self._costs(rng)
        limit = max(np.quantile(list(peak.values()), self.memory), 1.05 * peak[0.0, 16.0, 1])
        recipes = [
            {
                "ratio": ratio, "bits": bits, "compress_seconds": 20.0, "score_seconds": 100.0,
                "examples": (hits := _hits(rng, base, loss[ratio, bits], ratio)).tolist(),
                "accuracy": float(hits.mean()),
            }
            for ratio, bits in itertools.product(RATIOS, BITS)
        ]  # fmt: skip
        cells = [
            {"ratio": ratio, "bits": bits, "batch": batch, **self._cell(key, speed, peak, limit)}
            for key in itertools.product(RATIOS, BITS, BATCHES)
            for ratio, bits, batch in [key]
        ]
        axes = {"pruning.ratio": RATIOS, "quantization.bits": BITS, "workload.batch_size": BATCHES}
        return {
            "axes": {path: list(values) for path, values in axes.items()}, "load_seconds": 10.0,
            "calibrate_seconds": dict.fromkeys(("pruning", "quantization", "both"), 25.0),
            "losses": self._predicted(rng, loss),
            "ids": [f"e{index}" for index in range(EXAMPLES)], "recipes": recipes, "cells": cells,
        }  # fmt: skip

    def _losses(self, rng: np.random.Generator) -> dict[tuple[float, float], float]:
        """Share of accuracy that every recipe loses, from what MiniLM (a model that bears pruning) and SmolLM2 lose."""
        steep, bend = math.exp(rng.uniform(math.log(0.125), math.log(1.05))), rng.uniform(1, 2)
        rounding = {16.0: 0.0, 8.0: rng.uniform(0, 0.017), 4.0: rng.uniform(0, 0.045), 3.0: rng.uniform(0.02, 0.15)}
        return {
            (ratio, bits): 0.0 if (ratio, bits) == (0.0, 16.0)
            else steep * 0.3 * (ratio / 0.3) ** bend + rounding[bits] * (1 + ratio) + rng.normal(0, self.rises)
            for ratio, bits in itertools.product(RATIOS, BITS)
        }  # fmt: skip

    @staticmethod
    def _predicted(rng: np.random.Generator, loss: dict[tuple[float, float], float]) -> list[dict[str, float]]:
        """Log-losses as a method would predict them: in the right order at large, each off by a third."""
        return [
            {"ratio": ratio, "bits": bits, "loss": max(share, 0.0) * math.exp(rng.normal(0, 0.3)), "seconds": 0.1}
            for (ratio, bits), share in loss.items()
        ]

    def _costs(self, rng: np.random.Generator) -> tuple[dict[Any, float], dict[Any, float]]:
        """Samples per second, and bytes at the peak."""
        weights, bandwidth = 10 ** rng.uniform(7.5, 9.5), 10 ** rng.uniform(10, 11.5)
        peak_flops, cache = bandwidth * rng.uniform(20, 200), rng.uniform(0.002, 0.05) * weights
        overhead = rng.uniform(0.02, 0.4) * 2 * weights / bandwidth
        unpacking = {16.0: 1.0, 8.0: rng.uniform(0.9, 1.15), 4.0: rng.uniform(1, 1.4), 3.0: rng.uniform(1.1, 1.6)}
        speed, peak = {}, {}
        for key in itertools.product(RATIOS, BITS, BATCHES):
            ratio, bits, batch = key
            stored = weights * (1 - ratio) * bits / 8 * (1.05 if bits < 16 else 1.0)
            memory = stored / bandwidth
            compute = 2 * weights * (1 - ratio) * batch / peak_flops * (unpacking[bits] if batch > 4 else 1.0)
            aligned = 1.08 if round(ratio * 10) % 3 == 1 else 1.0
            nugget = math.exp(rng.normal(0, self.nugget))
            speed[key] = batch / ((memory**3 + compute**3) ** (1 / 3) * aligned * nugget + overhead)
            peak[key] = stored + cache * batch
        return speed, peak

    def _cell(self, key: Any, speed: dict[Any, float], peak: dict[Any, float], limit: float) -> dict[str, Any]:
        if peak[key] > limit:
            known = {"severity": peak[key] / limit - 1, "predicted_peak": peak[key], "seconds": 1.0}
            return {"reason": "out_of_memory", "message": "", "seconds": 20.0, **(known if self.predicted else {})}
        start = (0.0, 16.0, 1)
        metrics = {
            "speedup": speed[key] / speed[start], "throughput": speed[key], "peak_memory": peak[key],
            "weight_bytes": 0.9 * peak[key], "latency.p50": key[2] / speed[key],
        }  # fmt: skip
        return {"metrics": metrics, "time_seconds": 20.0}


def _hits(rng: np.random.Generator, base: np.ndarray, loss: float, ratio: float) -> np.ndarray:
    """Those of a recipe that loses that share: it fails where the baseline did not, and at times the reverse.

    How many change sides beyond what the loss asks for is as on MiniLM: 1 to 3 % of all, and 15 % of the ratio more.
    """
    if loss == 0:
        return base
    net = -ACCURACY * loss
    both = 0.012 + 0.15 * ratio + rng.uniform(0, 0.015)
    down, up = both / 2 + max(0.0, -net), both / 2 + max(0.0, net)
    found = base.copy()
    right, wrong = np.flatnonzero(base == 1), np.flatnonzero(base == 0)
    found[rng.choice(right, min(len(right), round(down * EXAMPLES)), replace=False)] = 0
    found[rng.choice(wrong, min(len(wrong), round(up * EXAMPLES)), replace=False)] = 1
    return found
