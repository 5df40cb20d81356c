"""The models of a problem: the source, the dense baseline, and those compressed by a recipe.

Each is made once. The latest compressed ones stay in memory, so that candidates that differ only in their workload
share one; what took long to make stays on disk as well, where the problem has a cache. A runtime may want another model
than torch does of the same recipe (:meth:`objectives.types.Runtime.storage`); those that want the same share it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from objectives import checkpoint, export_check
from objectives.calibration import Domains, Statistics
from objectives.content import Indescribable, code, digest
from objectives.errors import ObjectiveError
from objectives.measuring.footprint import FAKE_ERRORS, Footprint, footprint, skeleton_of, sketch
from objectives.measuring.weighing import stored_bytes
from objectives.models import LoadedModel, require_units
from objectives.problem import Problem
from objectives.provenance import (
    Reads,
    Source,
    checkpoint_sources,
    code_sources,
    own_classes,
    row_sources,
    rows_hash,
    text_sources,
)
from objectives.runtime.guard import Guard
from objectives.shelf import Shelf, Write
from objectives.stock import MANIFEST
from objectives.tasks.answers import calibrated, told
from objectives.tasks.overlap import require_disjoint
from objectives.types import Candidate, Device, Pruner, Quantizer, Recovery, Runner, Runtime, Workload

log = logging.getLogger(__name__)

Recipe = tuple[Pruner, Recovery, Quantizer, Runtime]
"""What decides about bytes and accuracy."""
Made = tuple[Pruner, Recovery, Quantizer]
"""What makes a compressed model."""

KEPT_BYTES = 1 << 30
"""Weights of compressed models that stay in memory beside the one in use."""

WORTH_KEEPING = 1.0
"""Seconds: what is made faster is made again instead of being kept on disk."""


def recipe_of(candidate: Candidate) -> Recipe:
    """All of ``candidate`` but its workload."""
    return candidate.pruning, candidate.recovery, candidate.quantization, candidate.runtime


def made_by(candidate: Candidate) -> Made:
    """What makes the model that its runtime runs."""
    return candidate.pruning, candidate.recovery, candidate.runtime.storage(candidate.quantization)


class Recipes:
    """Of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.built: dict[Made, LoadedModel] = {}
        self.engines: dict[Recipe, Runner] = {}
        self.seconds: dict[Recipe, float] = {}
        """That each model took to make or to load, and to convert, in this process."""
        self.shelf = Shelf(problem.cache)
        self.guard = Guard(problem.cache)
        self.reads = Reads()
        self.left_out = ""
        self._footprints: dict[tuple[Recipe, Workload], Footprint | None] = {}

    @cached_property
    def source(self) -> LoadedModel:
        """The checkpoint as loaded, never changed."""
        return self.problem.model.load()

    @cached_property
    def calibration(self) -> Domains:
        """Token batches by domain. Raises TaskError where the task gives something else."""
        source = self.source
        with self.reads.watched():
            return calibrated(self.problem.task, source)

    @cached_property
    def own_code(self) -> list[Source]:
        """Modules of classes that are not ours, as they are loaded when this is first asked."""
        return code_sources(own_classes(self.problem))

    def sources(self) -> list[Source]:
        """What scores depend on, as far as it was read: see :mod:`objectives.provenance`."""
        names = getattr(self.source.tokenizer, "vocab_files_names", {}).values()
        return [
            *checkpoint_sources(self.problem.model.folder(), [name for name in names if isinstance(name, str)]),
            *self.data,
            *code_sources(own_classes(self.problem)),
            *self._texts,
            *row_sources({name: _rows_hash(batches) for name, batches in self.calibration.items()}),
        ]

    @property
    def data(self) -> list[Source]:
        """Files that were opened while calibration rows were made and the baseline was scored."""
        folder = self.problem.model.folder()
        without = [folder, *(file for file in folder.iterdir() if file.is_symlink())]
        if self.problem.cache is not None:
            without.append(Path(self.problem.cache.folder))
        return self.reads.sources(without)

    @cached_property
    def _texts(self) -> list[Source]:
        with told(self.problem.task, "documents"):
            return text_sources(self.problem.task)

    @cached_property
    def baseline(self) -> LoadedModel:
        """The dense model, ready to run."""
        return self.compress(made_by(self.problem.baseline), Statistics(self.source, {}))

    @cached_property
    def statistics(self) -> Statistics:
        """Of the baseline."""
        return Statistics(self.source, self.calibration, self.baseline)

    @cached_property
    def _skeleton(self) -> LoadedModel:
        return skeleton_of(self.source)

    def is_dense(self, candidate: Candidate) -> bool:
        """Whether its model is the baseline's."""
        return recipe_of(candidate) == recipe_of(self.problem.baseline)

    def compress(self, recipe: Made, statistics: Statistics | None = None) -> LoadedModel:
        """Make a model anew."""
        pruner, recovery, quantizer = recipe
        statistics = statistics or self.statistics
        model = self.source.copy()
        require_units(model, pruner)
        pruner.prune_(model, statistics)
        recovery.recover_(model, statistics)
        quantizer.quantize_(model, statistics, self.problem.device)
        model.notes += [
            f"{name}: no calibration row that was read tells what it is worth" for name in statistics.unread
        ]
        return model

    def model(self, candidate: Candidate) -> LoadedModel:
        """The compressed model of a candidate, in torch; the latest ones are kept."""
        recipe = made_by(candidate)
        if recipe == made_by(self.problem.baseline):
            return self.baseline
        model = self.built.pop(recipe, None)
        if model is None:
            self._make_room()
            model = self._stored(recipe) or self._made(recipe)
        self.built[recipe] = model  # last: the order is that of use
        return model

    def runner(self, candidate: Candidate) -> Runner:
        """What runs a candidate; the latest ones are kept."""
        recipe, is_torch = recipe_of(candidate), candidate.runtime.is_torch
        runner = self.engines.pop(recipe, None)
        if runner is None:
            there = self.is_dense(candidate) or (is_torch and self.is_built(candidate))
            if not is_torch:
                self._make_room()
            began = time.perf_counter()
            runner = candidate.runtime.prepare(Making(self, candidate))
            if not there:
                self.seconds[recipe] = time.perf_counter() - began
        if not any(runner is kept for kept in (self.baseline, self.built.get(made_by(candidate)))):  # as they are
            self.engines[recipe] = runner
        return runner

    def is_built(self, candidate: Candidate) -> bool:
        """Whether it is in memory."""
        there = made_by(candidate) in self.built or recipe_of(candidate) in self.engines
        return there or self.is_the_baseline(candidate)

    def is_the_baseline(self, candidate: Candidate) -> bool:
        """Whether it runs the very tensors of the baseline."""
        return candidate.runtime.is_torch and made_by(candidate) == made_by(self.problem.baseline)

    def forget(self) -> None:
        """Let go of all compressed models."""
        self.built.clear()
        self.engines.clear()

    def name(self, candidate: Candidate, *more: object) -> str | None:
        """What tells the candidate's model from all others, and ``more``; None where something cannot be described, or
        nothing is kept.
        """
        if self.problem.cache is None:
            return None
        try:
            return digest(self._circumstances, recipe_of(candidate), candidate.runtime.versions(), *more)
        except Indescribable:
            return None

    @cached_property
    def _circumstances(self) -> list[object]:
        """What all models of the problem depend on besides their recipe."""
        device = self.problem.device.describe()
        numerics = [device.get(name) for name in ("device", "device_name", "cpu_capability", "compute_capability")]
        versions = [version(name) for name in ("torch", "transformers")]
        held = hashlib.sha256()
        for domain, batches in self.calibration.items():
            held.update(json.dumps([domain, [list(batch.shape) for batch in batches]]).encode())
            for batch in batches:
                held.update(batch.numpy().tobytes())
        baseline = recipe_of(self.problem.baseline)
        own = [(source.name, source.sha256) for source in self.own_code]
        return [code(), own, versions, numerics, self.problem.model.content_hash(), held.hexdigest(), baseline]

    def _stored(self, recipe: Made) -> LoadedModel | None:
        """The model as it was made earlier."""
        cache, name = self.problem.cache, self._stored_name(recipe)
        folder = None if cache is None or name is None else cache.folder_of("compress", name)
        if cache is None or name is None or folder is None:
            return None
        try:
            model = checkpoint.load(folder)
            export_check.check_answers(folder, model)
            model.predicted_loss = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["predicted_loss"]
        except (ObjectiveError, OSError) as error:
            log.warning("the cache's model %s is damaged and will be made again: %s", folder, error)
            cache.drop("compress", name)
            return None
        return model

    def _made(self, recipe: Made) -> LoadedModel:
        statistics = self.statistics  # gathered once, for all
        began = time.perf_counter()
        model = self.compress(recipe, statistics)
        worth = time.perf_counter() - began >= WORTH_KEEPING
        cache, name = self.problem.cache, self._stored_name(recipe)
        if cache is not None and name is not None and worth and not model.simulated:

            def write(folder: Path) -> None:
                checkpoint.save(model, folder, {"predicted_loss": model.predicted_loss})
                ids = export_check.sample(self.calibration)
                export_check.check(model, checkpoint.load(folder), ids, folder)
                export_check.write_answers(folder, model, ids)

            try:
                cache.put_folder("compress", name, write)
            except ObjectiveError as error:
                log.warning("a compressed model is not kept in the cache: %s", error)
        return model

    def _stored_name(self, recipe: Made) -> str | None:
        """Return none for a device whose models are not written."""
        if not self.problem.device.writes_checkpoints:
            return None
        return self.name(Candidate(recipe[0], recipe[2], self.problem.baseline.workload, recipe[1]))

    def _make_room(self) -> None:
        """Let go of the models that were not used for longest, before the next one is built."""
        sizes = {recipe: stored_bytes([model.module]) for recipe, model in self.built.items()}
        for recipe in list(sizes):
            if sum(sizes.values()) > KEPT_BYTES:
                del self.built[recipe], sizes[recipe]
        engines = {recipe: one.stored_bytes for recipe, one in self.engines.items()}
        for oldest in list(engines):
            if sum(engines.values()) > KEPT_BYTES:
                del self.engines[oldest], engines[oldest]

    def shapes(self, candidate: Candidate) -> Footprint | None:
        """What a candidate will need, before it is built. None where only its accuracy will be measured, or where its
        code needs values.
        """
        key = (recipe_of(candidate), candidate.workload)
        if not candidate.quantization.stored or not candidate.runtime.is_torch:
            return None
        if key not in self._footprints:
            model = sketch(self._skeleton, candidate, self.statistics, self.problem.device)
            try:
                self._footprints[key] = footprint(model, candidate.workload)
            except FAKE_ERRORS:  # its code looks at values: it can be measured all the same
                self._footprints[key] = None
        return self._footprints[key]

    def prepare(self) -> None:
        """Load model and data, so that what is missing is said before the first trial."""
        _ = self.calibration
        with told(self.problem.task, "excerpts"):
            self.left_out = require_disjoint(self.problem.task, self.source)
        if self.left_out:
            log.warning(self.left_out)


def _rows_hash(batches: Sequence[Tensor]) -> str:
    return rows_hash([list(batch.shape) for batch in batches], (batch.numpy().tobytes() for batch in batches))


@dataclass(frozen=True)
class Making:
    """What a runner of ``candidate`` is made of: see ``objectives.types.Materials``."""

    recipes: Recipes
    candidate: Candidate

    @property
    def tokenizer(self) -> Any:
        """See ``objectives.types.Materials``."""
        return self.recipes.source.tokenizer

    @property
    def device(self) -> Device:
        """See ``objectives.types.Materials``."""
        return self.recipes.problem.device

    @property
    def threads(self) -> int:
        """See ``objectives.types.Materials``."""
        return torch.get_num_threads()

    @property
    def quantizer(self) -> Quantizer:
        """See ``objectives.types.Materials``."""
        return self.candidate.quantization

    @property
    def calibration(self) -> Domains:
        """See ``objectives.types.Materials``."""
        return self.recipes.calibration

    def model(self) -> LoadedModel:
        """See ``objectives.types.Materials``."""
        return self.recipes.model(self.candidate)

    def graph(self, *content: object, write: Write) -> Path:
        """See ``objectives.types.Materials``."""
        name = digest(code(), [version(name) for name in ("torch", "transformers")], *content)
        return self.recipes.shelf.folder("graph", name, write)

    def engine(self, write: Write, part: str = "") -> Path:
        """See ``objectives.types.Materials``."""
        return self.recipes.shelf.folder("engine", self.recipes.name(self.candidate, "engine", part), write)

    def admit(self, folder: Path) -> None:
        """See ``objectives.types.Materials``."""
        self.recipes.guard.admit(folder, self.candidate.runtime, self.threads)

    def release(self, owner: object, folder: Path) -> None:
        """See ``objectives.types.Materials``."""
        self.recipes.shelf.release_with(owner, folder)
