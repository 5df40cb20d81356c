"""The inputs of a problem: its checkpoint, its calibration rows, its texts, and all that its scores depend on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from objectives.calibration.moments import Domains
from objectives.evaluation.problem import Problem
from objectives.models import LoadedModel
from objectives.models.batch import Batch, batch_of
from objectives.protocols.optional import Filed
from objectives.tasks.answers import calibrated, told
from objectives.tasks.overlap import require_disjoint
from objectives.tasks.provenance import (
    Kind,
    Source,
    checkpoint_sources,
    code_sources,
    own_code,
    row_sources,
    rows_hash,
    text_sources,
)
from objectives.tasks.reads import Reads

log = logging.getLogger(__name__)


class Inputs:
    """The inputs of one problem, each read once; ``left_out``: examples that are not scored, and why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.reads = Reads()
        self.left_out = ""

    @cached_property
    def source(self) -> LoadedModel:
        """Return the checkpoint as loaded, never changed."""
        return self.problem.model.load()

    @cached_property
    def calibration(self) -> Domains:
        """Return token batches by domain. Raises TaskError where the task gives something else."""
        source = self.source
        with self.reads.watched():
            return calibrated(self.problem.task, source)

    @cached_property
    def own_code(self) -> list[Source]:
        """Return the modules of classes and functions that are not ours, as they are when this is first read."""
        return self._code()

    def sources(self) -> list[Source]:
        """Return what scores depend on, as far as it was read: see :mod:`objectives.tasks.provenance`."""
        names = getattr(self.source.tokenizer, "vocab_files_names", {}).values()
        return [
            *checkpoint_sources(self.problem.model.folder(), [name for name in names if isinstance(name, str)]),
            *self.data,
            *self._of_workload(),
            *self._code(),
            *self._texts,
            *row_sources({name: _rows_hash(batches) for name, batches in self.calibration.items()}),
        ]

    def _of_workload(self) -> list[Source]:
        """Return the file of a workload: speeds depend on it as accuracies depend on others."""
        workload = self.problem.baseline.workload
        if not isinstance(workload, Filed) or (file := workload.file()) is None:
            return []
        return [Source(Kind.DATA, str(file), workload.file_hash() or "", str(file))]

    def _code(self) -> list[Source]:
        return code_sources(own_code(self.problem))

    @property
    def data(self) -> list[Source]:
        """Return the files that were opened while calibration rows were made and the baseline was scored."""
        folder = self.problem.model.folder()
        without = [folder, *(file for file in folder.iterdir() if file.is_symlink())]
        if self.problem.cache is not None:
            without.append(Path(self.problem.cache.folder))
        return self.reads.sources(without)

    @cached_property
    def _texts(self) -> list[Source]:
        with told(self.problem.task, "documents"):
            return text_sources(self.problem.task)

    def prepare(self) -> None:
        """Load model and data, so that an error about a missing one comes before the first trial."""
        _ = self.calibration
        with told(self.problem.task, "excerpts"):
            self.left_out = require_disjoint(self.problem.task, self.source)
        if self.left_out:
            log.warning(self.left_out)


def _rows_hash(batches: Sequence[Tensor | Batch]) -> str:
    """Return the hash of batches; that of plain ids is the same whether or not they stand in a :class:`Batch`."""
    rows = [batch_of(batch) for batch in batches]
    return rows_hash([batch.description for batch in rows], (batch.content for batch in rows))
