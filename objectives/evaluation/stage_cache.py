"""Results of stages, each kept under a name made from all that it depends on: the inputs, the recipe, the code.

Nothing has to be declared stale: other content has another name.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from objectives.content_hash import Indescribable, code, digest
from objectives.errors import ObjectiveError
from objectives.evaluation.inputs import Inputs
from objectives.evaluation.problem import Problem
from objectives.evaluation.recipe import CompressionKey, recipe_of
from objectives.export import checkpoint, export_check
from objectives.export.stock import MANIFEST
from objectives.models import LoadedModel
from objectives.models.batch import batch_of
from objectives.protocols.candidate import Candidate
from objectives.protocols.optional import Packaged, Unkept
from objectives.protocols.task import Task
from objectives.runtime.in_torch.runner import TorchRunner

log = logging.getLogger(__name__)

_KEPT = "kept_inputs"


class StageCache:
    """The cache of one problem; keeps nothing where the problem has none."""

    def __init__(self, problem: Problem, inputs: Inputs) -> None:
        self.problem, self.inputs = problem, inputs

    def name(self, candidate: Candidate, *more: object) -> str | None:
        """Return a hash over all that the candidate's model depends on, and ``more``.

        None where some of it cannot be described, or where the problem has no cache.
        """
        if self.problem.cache is None or isinstance(candidate.runtime, Unkept):
            return None
        try:
            return digest(self._circumstances, recipe_of(candidate), candidate.runtime.versions(), *more)
        except Indescribable:
            return None

    def get(self, stage: str, name: str | None) -> dict[str, Any] | None:
        """Return what :meth:`put` stored; None where nothing is kept."""
        cache = self.problem.cache
        return None if cache is None or name is None else cache.get(stage, name)

    def put(self, stage: str, name: str | None, value: Mapping[str, Any]) -> None:
        """Store a stage's result in the problem's cache, where it has one and the candidate has a name."""
        if self.problem.cache is not None and name is not None:
            self.problem.cache.put(stage, name, value)

    @cached_property
    def _circumstances(self) -> list[object]:
        """Return what all models of the problem depend on besides their recipe."""
        device = self.problem.device.describe()
        numerics = [device.get(name) for name in ("device", "device_name", "cpu_capability", "compute_capability")]
        versions = [version(name) for name in ("torch", "transformers")]
        rows = hashlib.sha256()
        for domain, given in self.inputs.calibration.items():
            batches = [batch_of(batch) for batch in given]
            rows.update(json.dumps([domain, [batch.description for batch in batches]]).encode())
            for batch in batches:
                rows.update(batch.content)
        baseline = recipe_of(self.problem.baseline)
        own_code = [(source.name, source.sha256) for source in self.inputs.own_code]
        return [code(), own_code, versions, numerics, self.problem.model.content_hash(), rows.hexdigest(), baseline]

    def model(self, recipe: CompressionKey) -> LoadedModel | None:
        """Return the model that was made earlier; None where there is none, or where it is damaged."""
        cache, name = self.problem.cache, self._stored_name(recipe)
        folder = None if cache is None or name is None else cache.folder_of("compress", name)
        if cache is None or name is None or folder is None:
            return None
        try:
            model = checkpoint.load(folder)
            export_check.check_answers(folder, model)
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            model.predicted_loss = manifest["predicted_loss"]
            model.kept_inputs |= {(block, path): torch.tensor(kept) for block, path, kept in manifest[_KEPT]}
        except (ObjectiveError, OSError) as error:
            log.warning("the cache's model %s is damaged and will be made again: %s", folder, error)
            cache.drop("compress", name)
            return None
        return model

    def keep_model(self, recipe: CompressionKey, model: LoadedModel) -> None:
        """Store a compressed model, if it answers the same once it is loaded again; a failure only logs a warning."""
        cache, name = self.problem.cache, self._stored_name(recipe)
        if cache is None or name is None or model.simulated:
            return

        def write(folder: Path) -> None:
            kept = [[*key, channels.tolist()] for key, channels in model.kept_inputs.items()]  # moments are of all
            checkpoint.save(model, folder, {"predicted_loss": model.predicted_loss, _KEPT: kept})
            ids = export_check.sample(self.inputs.calibration)
            export_check.check(TorchRunner(model), TorchRunner(checkpoint.load(folder)), ids, folder)
            export_check.write_answers(folder, model, ids)

        try:
            cache.put_folder("compress", name, write)
        except ObjectiveError as error:
            log.warning("a compressed model is not kept in the cache: %s", error)

    def _stored_name(self, recipe: CompressionKey) -> str | None:
        """Return the name of a recipe's model; None for a device whose models are not written."""
        if not self.problem.device.writes_checkpoints:
            return None
        pruning, recovery, quantization = recipe
        base = self.problem.baseline
        return self.name(Candidate(pruning, quantization, base.workload, recovery, base.runtime))


def packages_of(task: Task) -> list[list[str | None]]:
    """Return the packages that the scores of ``task`` depend on, each with its version, None for a missing one."""
    return [[name, _version(name)] for name in sorted(task.packages)] if isinstance(task, Packaged) else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
