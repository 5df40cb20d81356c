"""Checks the results of a task where they come in, so that a user's own task keeps the rules that ours keep.

A score has one number per example and a name for each; calibration has token batches. Anything else, and any exception
of the task's code, becomes an error of one line that names the class.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.errors import ObjectiveError, TaskError, described
from objectives.metrics import METRICS
from objectives.models.batch import Batch
from objectives.settings import class_path
from objectives.tasks.finite import number
from objectives.tasks.paired import is_resampled
from objectives.tasks.provenance import own_classes
from objectives.tasks.resampling import FEWEST, spread
from objectives.types import Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.task import Task


_PASSED = (ObjectiveError, MemoryError, KeyboardInterrupt)
"""Exceptions that stay what they are, whoever's code raises them."""

_OURS = Path(__file__).parents[1]

_MEASURED = {*METRICS, "accuracy", "stderr"} - {"perplexity"}


def class_of(part: Any) -> str:
    """Return ``module.Class`` of an object; where an object of ours holds a user's, that of the user's."""
    return class_path(next(iter(own_classes(part)), type(part)))


@contextmanager
def told(task: Task, what: str) -> Iterator[None]:
    """Raise TaskError of one line for what a user's ``task`` raises while it does ``what``; ours raise as they are."""
    try:
        yield
    except _PASSED:
        raise
    except (Exception, SystemExit) as error:
        if not own_classes(task) or _is_of_memory(error):
            raise
        raise TaskError(f"task: {class_of(task)}.{what} raised {in_a_line(error)}") from error


def asked(key: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a user's ``function``, which the setting ``key`` names; raise TaskError of one line for what it raises.

    A generator runs while it is read: it is read here, to its end.
    """
    try:
        answer = function(*arguments)
        return list(answer) if isinstance(answer, Iterator) else answer
    except TaskError as error:  # of a method of ours that the function called
        raise TaskError(f"{key}: {class_path(function)}: {error}") from error
    except _PASSED:
        raise
    except (Exception, SystemExit) as error:
        if _is_of_memory(error):
            raise
        raise TaskError(f"{key}: {class_path(function)} raised {in_a_line(error)}") from error


def _is_of_memory(error: BaseException) -> bool:
    return any(text in str(error).lower() for text in ("out of memory", "can't allocate memory"))


def in_a_line(error: BaseException) -> str:
    """Return the error and the innermost line outside of libraries and of ours: ``KeyError: 'x' (mine.py, line 3)``."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    others = [frame for frame in frames if not Path(frame.filename).is_relative_to(_OURS)] or frames
    where = f" ({Path(others[-1].filename).name}, line {others[-1].lineno})" if others else ""
    return f"{described(error)}{where}"


def calibrated(task: Task, model: LoadedModel) -> Domains:
    """Return the task's calibration rows. Raises TaskError for anything but token batches by domain."""
    with told(task, "calibration"):
        domains = task.calibration(model)
    wrong = _wrong_rows(domains, model.vocabulary)
    if wrong:
        raise TaskError(
            f"task: {class_of(task)}.calibration must return token batches (int64, [rows, tokens]) by domain; {wrong}"
        )
    return domains


def scored(task: Task, answer: Any) -> Score:
    """Return ``answer`` as the task's score, with tuples for its lists. Raises TaskError where it is no score.

    The standard error of a metric that has replicates is theirs. Whether its numbers can be an accuracy is checked
    where they are used.
    """
    wrong = _wrong_score(answer)
    if wrong:
        raise TaskError(f"task: {class_of(task)}.evaluate must return a Score (objectives/types.py); {wrong}")
    score: Score = replace(
        answer,
        accuracy=float(answer.accuracy),
        stderr=float(answer.stderr),
        examples=tuple(map(float, answer.examples)),
        ids=tuple(map(str, answer.ids)),
        strata=tuple(answer.strata),
        replicates=tuple(map(float, answer.replicates)),
    )
    return replace(score, stderr=spread(score.replicates)) if is_resampled(score) else score


def _wrong_score(answer: Any) -> str:
    if not isinstance(answer, Score):
        return f"got {shown(answer)}"
    return _wrong_numbers(answer) or _wrong_lists(answer)


def _wrong_numbers(answer: Any) -> str:
    numbers = {"accuracy": answer.accuracy, "stderr": answer.stderr}
    if not isinstance(answer.extra, Mapping):
        return f"its extra is {shown(answer.extra)}, not a mapping of numbers"
    taken = sorted(name for name in answer.extra if name in _MEASURED)
    if taken:
        return f"its extra holds {taken[0]!r}, which is measured or told elsewhere: call it otherwise"
    for name, value in {**numbers, **answer.extra}.items():
        if number(value) is None:
            return f"its {name} is {shown(value)}, not a number"
    return ""


def _wrong_lists(answer: Any) -> str:
    try:
        examples, ids, strata = list(answer.examples), list(answer.ids), list(answer.strata)
        replicates = list(answer.replicates)
    except TypeError:
        return "its examples, ids, strata and replicates must be tuples"
    if not examples:
        return "it has no examples: one number for each is needed"
    odd = [value for value in examples if number(value) is None]
    if odd:
        return f"its examples must be numbers, got {shown(odd[0])}"
    if ids and (len(ids) != len(examples) or len(set(ids)) < len(ids)):
        return f"it has {len(examples)} examples and {len(set(ids))} different ids: one each, or none"
    if strata and sum(strata) != len(examples):
        return f"its strata {tuple(strata)} are of {sum(strata)} examples, it has {len(examples)}"
    return _wrong_replicates(replicates)


def _wrong_replicates(replicates: Sequence[Any]) -> str:
    odd = [value for value in replicates if number(value) is None]
    if odd:
        return f"its replicates must be numbers, got {shown(odd[0])}"
    if replicates and len(replicates) < FEWEST:
        return f"it has {len(replicates)} replicates: at least {FEWEST}, or none (objectives/tasks/resampling.py)"
    return ""


def _wrong_rows(domains: Any, vocabulary: int) -> str:
    import torch

    if not isinstance(domains, Mapping):
        return f"got {shown(domains)}"
    for name, batches in domains.items():
        if isinstance(batches, torch.Tensor) or not isinstance(batches, Sequence):
            return f"got {shown(batches)} for domain {name}, not a list of batches"
        for batch in batches:
            wrong = _wrong_batch(batch, vocabulary)
            if wrong:
                return wrong.format(name)
        if not batches:
            return f"domain {name} has no batch"
    return "" if domains else "got no domain"


def _wrong_batch(batch: Any, vocabulary: int) -> str:
    """Return what is wrong with a batch, with a place for the name of its domain."""
    import torch

    ids = [batch.ids, batch.targets] if isinstance(batch, Batch) else [batch]
    for part in ids:
        if part is None and part is not ids[0]:
            continue
        if not isinstance(part, torch.Tensor) or part.dtype != torch.int64 or part.dim() != 2:
            return f"got {shown(part)} for a batch of domain {{}}"
        if not part.numel():
            return "domain {} has a batch without tokens"
        if not 0 <= int(part.min()) <= int(part.max()) < vocabulary:
            return f"domain {{}} has token ids outside of 0 to {vocabulary - 1}"
    if isinstance(batch, Batch):
        rows = {len(part) for part in batch.tensors.values()}
        if len(rows) > 1 or (batch.types is not None and batch.types.shape != batch.shape):
            return "a batch of domain {} has parts of unlike sizes"
    return ""


def shown(value: Any) -> str:
    """Return type and value, or type and shape: ``float 0.5``, ``Tensor int32 [2, 3]``."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} {value.dtype} {list(value.shape)}"
    text = repr(value)
    return "None" if value is None else f"{type(value).__name__} {text if len(text) < 40 else ''}".strip()
