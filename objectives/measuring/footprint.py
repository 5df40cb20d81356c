"""Predicts what a run will need from shapes alone: peak bytes, operations, bytes read. Nothing is computed.

The model's modules are copied with fake tensors (shape and dtype, no storage) and the workload runs on them as on real
ones, while a :class:`~objectives.measuring.trace.Trace` watches. So the model that is predicted is the model that will
run, whatever its family, widths and kernels. Memory that a kernel allocates inside itself is not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from objectives.calibration.statistics import Statistics
from objectives.measuring.roofline import Work
from objectives.measuring.trace import Forward, Trace, tracing
from objectives.models import LoadedModel, require_units
from objectives.packing.blocked import Blocked
from objectives.packing.weighing import stored_bytes
from objectives.protocols.candidate import Candidate
from objectives.protocols.optional import Arranging
from objectives.protocols.running import Device, Workload
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Phase

FAKE_ERRORS = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedFakeTensorException,
    fake_tensor.UnsupportedOperatorException,
)
"""Exceptions that torch raises where shapes alone do not say what comes next."""


@dataclass(frozen=True)
class Footprint:
    """The predicted memory and work of a run.

    ``weights``: bytes of the resting model; ``peaks``: bytes that each phase adds at its peak; ``cache``: bytes of keys
    and values at the end; ``work``: of the largest lap of each phase.
    """

    weights: int
    peaks: Mapping[Phase, int]
    cache: int
    work: Mapping[Phase, Work]

    @property
    def peak(self) -> int:
        """Return the peak bytes of the whole run, weights included."""
        return self.weights + max(self.peaks.values())


def footprint(model: LoadedModel, workload: Workload, weights: int | None = None, kv_bits: int = 16) -> Footprint:
    """Predict the footprint of ``workload`` on ``model``, whose tensors may be real or fake.

    ``weights``: the model's bytes, where known; ``kv_bits``: bits of its keys and values.
    """
    weights = stored_bytes([model.module]) if weights is None else weights
    fake = model if is_fake(model) else fake_copy(model)
    peaks: dict[Phase, int] = {}
    work: dict[Phase, Work] = {}
    cache = 0
    known: dict[Hashable, Forward] = {}
    for phase, excerpt in workload.representative_runs().items():
        trace = Trace(fake.module)
        with tracing(fake.module, trace, known):
            excerpt.run(TorchRunner(fake, kv_bits=kv_bits), trace)
        peaks[phase], cache = trace.peaks[phase], trace.cache
        work[phase] = Work(float(trace.read[phase]), dict(trace.operations[phase]))
    return Footprint(weights, peaks, cache, work)


def sketch(dense: LoadedModel, candidate: Candidate, statistics: Statistics, device: Device) -> LoadedModel:
    """Make a fake model of ``candidate`` from the fake dense one: its shapes, and how it is stored."""
    model = dense.sharing()
    require_units(model, candidate.pruning)
    candidate.pruning.resize_fake_(model, statistics)
    candidate.quantization.resize_fake_(model, statistics, device)
    return candidate.runtime.arranged(model) if isinstance(candidate.runtime, Arranging) else model


def is_fake(model: LoadedModel) -> bool:
    """Return whether the model's tensors are fake."""
    return any(isinstance(tensor.data, FakeTensor) for tensor in model.module.parameters())


def fake_copy(model: LoadedModel) -> LoadedModel:
    """Copy the model with tensors that have shapes and no storage."""
    fake_mode: Any = FakeTensorMode  # has no types
    mode = fake_mode(allow_non_fake_inputs=True)
    memo: dict[int, Any] = {}
    for tensor in (*model.module.parameters(), *model.module.buffers()):
        fake = mode.from_tensor(tensor.detach())
        memo[id(tensor)] = nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake
    for part in model.module.modules():
        hidden = getattr(part, "_fbgemm", None)
        if hidden is not None:
            memo[id(hidden)] = part.out_features
        blocked = getattr(part, "blocked", None)
        if blocked is not None:
            with mode:
                memo[id(blocked)] = Blocked(torch.empty(part.out_features, part.in_features, dtype=torch.bfloat16))
    module = copy.deepcopy(model.module, memo)
    return LoadedModel(module, model.tokenizer, model.head, layers=dict(model.layers), row=model.row)
