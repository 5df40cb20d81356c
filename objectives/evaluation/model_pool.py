"""The models of a problem: the source, the dense baseline, and those compressed by a recipe.

Each is made once. The latest compressed ones stay in memory, so that candidates that differ only in their workload
share one. Where the problem has a cache, a model that took long to make stays on disk as well. For the same recipe a
runtime may want another model than torch does (:meth:`Runtime.storage`); runtimes that want the same one share it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from objectives.calibration.moments import Domains
from objectives.calibration.statistics import Statistics, input_powers
from objectives.content_hash import code, digest
from objectives.evaluation.artifact_store import ArtifactStore, Write
from objectives.evaluation.inputs import Inputs
from objectives.evaluation.kept_statistics import KeptStatistics
from objectives.evaluation.problem import KEPT_BYTES, Problem
from objectives.evaluation.recipe import CompressionKey, Recipe, compression_key, recipe_of
from objectives.evaluation.stage_cache import StageCache
from objectives.measuring.footprint import FAKE_ERRORS, Footprint, fake_copy, footprint, sketch
from objectives.models import LoadedModel, require_units
from objectives.packing.weighing import stored_bytes
from objectives.protocols.candidate import BuildContext, Candidate, Quantizer
from objectives.protocols.running import Device, Runner, Workload
from objectives.runtime.engines.guard import Guard
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.types import Note, NoteCode

log = logging.getLogger(__name__)


WORTH_KEEPING = 1.0
"""Seconds: a model that takes less to make is made again instead of being kept on disk."""


class ModelPool:
    """The models and runners of one problem, each made once, and what they were made from.

    ``built``: compressed models in memory; ``engines``: runners in memory, both in the order of use.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.built: dict[CompressionKey, LoadedModel] = {}
        self.engines: dict[Recipe, Runner] = {}
        self.seconds: dict[Recipe, float] = {}
        """Seconds that each model took to make or to load, and to convert, in this process."""
        self.artifacts = ArtifactStore(problem.cache)
        self.guard = Guard(problem.cache)
        self.inputs = Inputs(problem)
        self.stages = StageCache(problem, self.inputs)
        self._footprints: dict[tuple[Recipe, Workload], Footprint | None] = {}

    @property
    def source(self) -> LoadedModel:
        """Return the checkpoint as loaded, never changed."""
        return self.inputs.source

    @property
    def calibration(self) -> Domains:
        """Return token batches by domain. Raises TaskError where the task gives something else."""
        return self.inputs.calibration

    @cached_property
    def baseline(self) -> LoadedModel:
        """Return the dense model, packed for the device."""
        return self.compress(compression_key(self.problem.baseline), Statistics(self.source, {}))

    @cached_property
    def baseline_runner(self) -> TorchRunner:
        """Return the runner of the dense model whenever others are compared with it: torch in eager mode."""
        return TorchRunner(self.baseline)

    @property
    def reference_runner(self) -> Runner:
        """Return the runner that others are timed beside: torch's, or that of a baseline that torch cannot run."""
        base = self.problem.baseline
        return self.baseline_runner if base.runtime.is_torch else self.runner(base)

    @cached_property
    def statistics(self) -> Statistics:
        """Return the statistics of the baseline's model on the calibration rows."""
        base = self.problem.baseline
        return KeptStatistics(
            self.source, self.calibration, self.baseline, self.artifacts,
            lambda kind: self.stages.name(base, "statistics", kind),
        )  # fmt: skip

    @cached_property
    def _fake(self) -> LoadedModel:
        return fake_copy(self.source)

    def is_dense(self, candidate: Candidate) -> bool:
        """Return whether the candidate has the baseline's recipe."""
        return recipe_of(candidate) == recipe_of(self.problem.baseline)

    def compress(self, recipe: CompressionKey, statistics: Statistics | None = None) -> LoadedModel:
        """Make a model anew from a copy of the source; ``statistics``: the baseline's where None."""
        pruner, recovery, quantizer = recipe
        statistics = statistics or self.statistics
        model = self.source.copy()
        require_units(model, pruner)
        pruner.prune_(model, statistics)
        recovery.recover_(model, statistics)
        quantizer.quantize_(model, statistics, self.problem.device)
        model.notes += [
            Note(NoteCode.OTHER, f"{name}: no calibration row that was read tells what it is worth")
            for name in statistics.unread
        ]
        return model

    def model(self, candidate: Candidate) -> LoadedModel:
        """Return the compressed model of a candidate, in torch; the latest ones are kept."""
        recipe = compression_key(candidate)
        if recipe == compression_key(self.problem.baseline):
            return self.baseline
        model = self.built.pop(recipe, None)
        if model is None:
            self._make_room()
            model = self.stages.model(recipe) or self._made(recipe)
        self.built[recipe] = model  # last: the order is that of use
        return model

    def runner(self, candidate: Candidate) -> Runner:
        """Return the runner of a candidate; the latest ones are kept."""
        recipe, is_torch = recipe_of(candidate), candidate.runtime.is_torch
        runner = self.engines.pop(recipe, None)
        if runner is None:
            has_model = self.is_dense(candidate) or (is_torch and self.is_built(candidate))
            if not is_torch:
                self._make_room()
            began = time.perf_counter()
            runner = candidate.runtime.prepare(PoolBuildContext(self, candidate))
            if not has_model:
                self.seconds[recipe] = time.perf_counter() - began
        if not self._runs_a_kept_model(runner, candidate):
            self.engines[recipe] = runner
        return runner

    def _runs_a_kept_model(self, runner: Runner, candidate: Candidate) -> bool:
        """Return whether ``runner`` holds nothing but a model that stays in memory without it.

        Subclasses of :class:`TorchRunner` hold more.
        """
        kept = (self.baseline, self.built.get(compression_key(candidate)))
        return type(runner) is TorchRunner and any(runner.model is model for model in kept)

    def is_built(self, candidate: Candidate) -> bool:
        """Return whether the candidate's model or runner is in memory."""
        is_kept = compression_key(candidate) in self.built or recipe_of(candidate) in self.engines
        return is_kept or self.is_the_baseline(candidate)

    def is_the_baseline(self, candidate: Candidate) -> bool:
        """Return whether the candidate runs the very tensors of the baseline."""
        return candidate.runtime.is_torch and compression_key(candidate) == compression_key(self.problem.baseline)

    def forget(self) -> None:
        """Drop all compressed models and their runners."""
        self.built.clear()
        self.engines.clear()

    def _made(self, recipe: CompressionKey) -> LoadedModel:
        statistics = self.statistics  # gathered once, for all
        began = time.perf_counter()
        model = self.compress(recipe, statistics)
        if time.perf_counter() - began >= WORTH_KEEPING:
            self.stages.keep_model(recipe, model)
        return model

    def _make_room(self) -> None:
        """Drop the models and runners that were not used for longest, before the next one is built."""
        sizes = {recipe: stored_bytes([model.module]) for recipe, model in self.built.items()}
        for recipe in list(sizes):
            if sum(sizes.values()) > KEPT_BYTES:
                del self.built[recipe], sizes[recipe]
        engines = {recipe: one.stored_bytes for recipe, one in self.engines.items()}
        for oldest in list(engines):
            if sum(engines.values()) > KEPT_BYTES and oldest != recipe_of(self.problem.baseline):  # it is in every turn
                del self.engines[oldest], engines[oldest]

    def shapes(self, candidate: Candidate) -> Footprint | None:
        """Predict the memory and work of a candidate before it is built.

        None where torch does not run it, where only its accuracy will be measured, or where its code needs values.
        """
        key = (recipe_of(candidate), candidate.workload)
        if not candidate.quantization.stored or not candidate.runtime.is_torch:
            return None
        if key not in self._footprints:
            model = sketch(self._fake, candidate, self.statistics, self.problem.device)
            try:
                self._footprints[key] = footprint(model, candidate.workload, kv_bits=candidate.kv.bits)
            except FAKE_ERRORS:  # its code looks at values: it can be measured all the same
                self._footprints[key] = None
        return self._footprints[key]


@dataclass(frozen=True)
class PoolBuildContext(BuildContext):
    """The context for a runner of ``candidate``, from the models and folders of ``pool``."""

    pool: ModelPool
    candidate: Candidate

    @property
    @override
    def tokenizer(self) -> Any:
        return self.pool.source.tokenizer

    @property
    @override
    def device(self) -> Device:
        return self.pool.problem.device

    @property
    @override
    def threads(self) -> int:
        return torch.get_num_threads()

    @property
    @override
    def quantizer(self) -> Quantizer:
        return self.candidate.quantization

    @property
    @override
    def calibration(self) -> Domains:
        return self.pool.calibration

    @property
    @override
    def kv_bits(self) -> int:
        return self.candidate.kv.bits

    @override
    def model(self) -> LoadedModel:
        return self.pool.model(self.candidate)

    @override
    def input_powers(self) -> Mapping[str, Tensor]:
        return input_powers(self.model(), self.pool.statistics)

    @override
    def graph(self, *content: object, write: Write) -> Path:
        name = digest(code(), [version(name) for name in ("torch", "transformers")], *content)
        return self.pool.artifacts.folder("graph", name, write)

    @override
    def engine(self, write: Write, part: str = "") -> Path:
        return self.pool.artifacts.folder("engine", self.pool.stages.name(self.candidate, "engine", part), write)

    @override
    def admit(self, folder: Path) -> None:
        self.pool.guard.admit(folder, self.candidate.runtime, self.threads)

    @override
    def release(self, owner: object, folder: Path) -> None:
        self.pool.artifacts.release_with(owner, folder)
