"""Build contexts of runtimes by hand: a compressed model, and folders that are filled once per run of the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from objectives.content_hash import digest
from objectives.devices.cpu import Cpu
from objectives.models import LoadedModel
from objectives.protocols.candidate import Candidate, Quantizer, Runtime
from objectives.protocols.running import Device, Runner
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.types import Head
from tests.conftest import head_of
from tests.objectives.recipes import CONF, built, choices

ABROAD = ("openai_server", "vllm")
"""Elsewhere, or in interpreters of their own, which take half a minute to start: see test_vllm.py, test_serving.py."""
RUNTIMES = [name for name in choices("runtime") if name not in ABROAD]
ENGINES = [name for name in RUNTIMES if not built("runtime", name).is_torch]
SLOW = ("torch_compile",)
"""Take a minute to prepare a tiny model."""
ON_GPUS = ("cuda_graphs",)
"""See test_cuda_graphs.py."""
each_runtime = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNTIMES if name not in ON_GPUS],
)


@dataclass
class Hand:
    """See ``BuildContext``; ``made`` notes what was converted."""

    loaded: LoadedModel
    quantizer: Any
    base: Path
    calibration: Any = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    threads: int = 1
    device: Device = field(default_factory=Cpu)
    powers: dict[str, Any] = field(default_factory=dict)
    kv_bits: int = 16

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    def model(self) -> LoadedModel:
        return self.loaded

    def input_powers(self) -> dict[str, Any]:
        return self.powers

    def graph(self, *content: object, write: Callable[[Path], None]) -> Path:
        folder = self.base / digest(*content)
        if not folder.exists():
            folder.mkdir(parents=True)
            write(folder)
            self.made.append("graph")
        return folder

    def engine(self, write: Callable[[Path], None], part: str = "") -> Path:
        folder = Path(mkdtemp(dir=self.base))
        write(folder)
        self.made.append(f"engine {part}".strip())
        return folder

    def admit(self, folder: Path) -> None:
        """Opened here at once: see test_guard.py."""

    def release(self, owner: object, folder: Path) -> None:
        """Kept, to be looked at."""


def rounded(bits: int, **more: Any) -> RoundToNearest:
    return RoundToNearest(bits=bits, predicts=False, **more)  # type: ignore[arg-type]


def candidate(quantizer: Quantizer, runtime: Runtime, workload: Any, ratio: float = 0.0) -> Candidate:
    return Candidate(Structured(ratio=ratio, criterion=Magnitude()), quantizer, workload, Off(), runtime)


def compressed(source: LoadedModel, statistics: Any, quantizer: Quantizer, ratio: float = 0.0) -> LoadedModel:
    """As a study would make it, with an uneven width in every layer where it is pruned."""
    model = source.copy()
    if ratio:
        pruner = Structured(ratio=ratio, criterion=Magnitude(), reconstruction="none", multiple_of=32)
        pruner.prune_(model, statistics)
    quantizer.quantize_(model, statistics, Cpu(threads=1))
    return model


def heads(runtime: Runtime, workloads: dict[Head, Any], quantizer: Quantizer) -> list[Head]:
    """Kinds of model that it takes."""
    return [
        head for head, workload in workloads.items()
        if runtime.supports(candidate(quantizer, runtime, workload), head, Cpu()) is None
    ]  # fmt: skip


__all__ = [
    "CONF",
    "ENGINES",
    "RUNTIMES",
    "Hand",
    "Runner",
    "candidate",
    "compressed",
    "each_runtime",
    "head_of",
    "heads",
    "rounded",
]
