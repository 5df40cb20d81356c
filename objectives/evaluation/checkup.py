"""A look at a problem before a study of it: load, calibrate, score four examples, run the baseline's workload once.

Everything is done by the code that a trial uses. Nothing is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from objectives.errors import Unsupported
from objectives.evaluation.model_pool import ModelPool
from objectives.evaluation.problem import CheckReport, ScoreSample
from objectives.models import LoadedModel
from objectives.models.batch import Batch
from objectives.models.inspection.limits import positions
from objectives.protocols.candidate import Candidate
from objectives.protocols.optional import Inspectable
from objectives.protocols.running import Runner
from objectives.protocols.task import PartiallyScorable, Task
from objectives.tasks.answers import scored, told
from objectives.tasks.finite import checked
from objectives.tasks.paired import follows_from_examples
from objectives.tasks.partial_scores import merged
from objectives.tasks.setting_names import named_below
from objectives.tasks.several import place_of, tasks_of
from objectives.types import Score

log = logging.getLogger(__name__)

EXAMPLES = 4


def checkup(pool: ModelPool) -> CheckReport:
    """Look at the problem of ``pool``. Raises ObjectiveError for an error that a study would meet at once."""
    began = time.perf_counter()
    pool.inputs.prepare()
    model, loaded = pool.source, time.perf_counter()
    scores = tuple(_sample(pool, name, task) for name, task in tasks_of(pool.problem.task).items())
    known = time.perf_counter()
    seconds = _run_seconds(pool)
    peak = _peak(pool)
    config = model.module.config
    return CheckReport(
        model_type=str(config.model_type),
        parameters=sum(parameter.numel() for parameter in model.module.parameters()),
        vocabulary=model.vocabulary,
        positions=_positions(pool),
        padding=str(model.tokenizer.pad_token) if model.tokenizer.pad_token is not None else None,
        **_blocks(model),
        calibration={name: _size(batches) for name, batches in pool.calibration.items()},
        scores=scores,
        run_seconds=seconds,
        peak_memory=peak,
        load_seconds=loaded - began,
        score_seconds=known - loaded,
        left_out=pool.inputs.left_out,
    )


def _sample(pool: ModelPool, name: str, task: Task) -> ScoreSample:
    with named_below(place_of(name), task):
        score, whole = _scores(pool, task)
    return ScoreSample(
        task=name,
        examples=dict(zip(_names(score), score.examples[:EXAMPLES])),
        accuracy=score.accuracy,
        extra=score.extra,
        whole=whole,
        stderr=score.stderr,
        replicates=None if follows_from_examples(score) else len(score.replicates),
    )


def _scores(pool: ModelPool, task: Task) -> tuple[Score, bool]:
    """Return the score of the first examples and False; that of all and True, where the task cannot score some."""
    runner = pool.runner(pool.problem.baseline)
    if isinstance(task, PartiallyScorable):
        with told(task, "parts"):
            parts = _first(task, runner)
        return checked(merged(parts), runner), False
    with told(task, "evaluate"):
        answer = task.evaluate(runner)
    return checked(scored(task, answer), runner), True


def _first(task: PartiallyScorable, runner: Runner) -> list[Score]:
    """Return the scores of the first examples, as many as there are; a task of fewer refuses the numbers beyond."""
    for number in range(EXAMPLES, 1, -1):
        try:
            return [scored(task, part) for part in islice(task.parts(runner, range(number)), number)]
        except IndexError:
            log.debug("the task has fewer than %d examples", number, exc_info=True)
    return [scored(task, part) for part in islice(task.parts(runner, range(1)), 1)]


def _names(score: Score) -> Sequence[str]:
    return score.ids or [str(place) for place in range(len(score.examples))]


def _run_seconds(pool: ModelPool) -> float:
    """Return the seconds of one run, after one to warm up."""
    baseline, device = pool.problem.baseline, pool.problem.device
    runner = pool.runner(baseline)
    for _ in range(2):
        watch = device.stopwatch()
        baseline.workload.run(runner, watch)
    return watch.timing(baseline.workload.items).latency[0]


def _peak(pool: ModelPool) -> int:
    """Return the bytes of the baseline's weights and of what a run adds."""
    baseline: Candidate = pool.problem.baseline
    runner = pool.runner(baseline)
    return runner.stored_bytes + runner.memory(baseline.workload, pool.problem.device).peak


def _positions(pool: ModelPool) -> int | None:
    """Return the most tokens that the model can hold, as ``plan`` counts them; None where nothing limits them."""
    model = pool.problem.model
    inspection = model.inspect() if isinstance(model, Inspectable) else None
    return None if inspection is None else positions(inspection.config, "decoder")


def _blocks(model: LoadedModel) -> dict[str, Any]:
    """Return the number of blocks and of their linears' weights; zeros, and why, where no row describes the model."""
    try:
        blocks = list(model.blocks())
    except Unsupported as error:
        return {"blocks": 0, "block_parameters": 0, "undescribed": str(error)}
    linears = [module for block in blocks for module in block.module.modules() if isinstance(module, torch.nn.Linear)]
    return {"blocks": len(blocks), "block_parameters": sum(linear.weight.numel() for linear in linears)}


def _size(batches: Sequence[torch.Tensor | Batch]) -> tuple[int, int]:
    """Return the number of rows and of tokens."""
    return sum(len(batch) for batch in batches), sum(batch.numel() for batch in batches)
