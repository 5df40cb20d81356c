"""A loaded task of lm-eval: its documents, what it asks of a model, and what it makes of the answers.

Prompts, filters, metrics and how examples combine are lm-eval's own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from objectives.errors import DataError, ObjectiveError, TaskError, described
from objectives.tasks.answers import shown
from objectives.tasks.data.rows import Row
from objectives.tasks.finite import number
from objectives.tasks.lm_eval_files import described_task, files_of, require_harmless

PERCENT = ("bleu", "chrf", "chrf++")
"""Metrics of lm-eval that are in percent."""


@dataclass(frozen=True)
class Request:
    """The requests that a task makes about one document: lm-eval's instances, in its order."""

    row: Row
    instances: Sequence[Any]


class LmEvalTask:
    """One task of lm-eval with its documents. ``shots``: examples in a prompt; None for as many as the task says."""

    def __init__(self, task: Any, name: str, shots: int | None, seed: int) -> None:
        """Take lm-eval's ``task``; ``seed`` draws the examples in prompts, for each document by itself."""
        self.task, self.name, self._seed = task, name, seed
        self._shots = int(shots if shots is not None else task.config.num_fewshot or 0)

    @cached_property
    def rows(self) -> list[Row]:
        """Return the documents that are scored."""
        return self._rows(self.task.eval_docs)

    @cached_property
    def training(self) -> list[Row]:
        """Return the documents of its training split; none where it has none."""
        return self._rows(self.task.training_docs()) if self.task.has_training_docs() else []

    def _rows(self, documents: Any) -> list[Row]:
        return [Row(document, self.name, place) for place, document in enumerate(documents, start=1)]

    def request(self, row: Row) -> Request:
        """Return what is asked about a document: the same, whatever was asked before."""
        document = row.values
        self.task.set_fewshot_seed(self._seed + row.number)
        context = self.task.fewshot_context(
            document, num_fewshot=self._shots, system_instruction=None, apply_chat_template=False,
            fewshot_as_multiturn=False, chat_template=None, gen_prefix=self.task.doc_to_prefix(document),
        )  # fmt: skip
        made = self.task.construct_requests(
            doc=document, ctx=context, metadata=(self.name, row.number, 1), apply_chat_template=False
        )
        return Request(row, made if isinstance(made, list) else [made])

    def golden(self, request: Request) -> tuple[str, str]:
        """Return the prompt of a document and the right answer after it."""
        first, document = request.instances[0], request.row.values
        if first.request_type == "loglikelihood_rolling":
            return "", str(first.args[0])
        gold = self.task.doc_to_target(document)
        if first.request_type == "generate_until":
            choices = self.task.doc_to_choice(document) if self.task.config.doc_to_choice is not None else None
            return first.args[0], self.task.config.target_delimiter + str(_first(gold, choices))
        place = 0
        if self.task.OUTPUT_TYPE == "multiple_choice":
            gold = self.task.doc_to_text(document) if self.task.multiple_input else gold
            place = _place(gold, None if self.task.multiple_input else self.task.doc_to_choice(document))
        context, continuation = request.instances[place].args[:2]
        return context, continuation

    # ---- metrics

    def require_metric(self, metric: str, key: str = "task.metric") -> None:
        """Raise DataError for a metric that the task does not have, and for one that is better when lower."""
        known = list(self.task.aggregation())
        if metric not in known:
            raise DataError(f"{key}: {self.name} has {', '.join(known)}, got {metric!r}")
        if self.task.higher_is_better().get(metric) is False:
            raise DataError(
                f"{key}: {metric} is better when lower; an accuracy is better when higher and within [0, 1]"
            )

    def is_mean(self, metric: str) -> bool:
        """Return whether examples are averaged to ``metric``."""
        from lm_eval.api.metrics import mean

        return self.task.aggregation()[metric] is mean

    def whole(self, metric: str) -> Callable[[Sequence[Any]], float]:
        """Return the function that makes one number in [0, 1] of what examples give."""
        aggregate, scale = self.task.aggregation()[metric], 0.01 if metric in PERCENT else 1.0
        return lambda values: scale * float(aggregate(list(values)))

    def values(
        self, requests: Sequence[Request], answers: Mapping[int, Any], metric: str, kept: str | None
    ) -> list[Any]:
        """Return what every example gives for ``metric``; NaN where an answer is not finite.

        ``answers``: by ``id`` of an instance; ``kept``: the filter whose answers count, by default the task's first.
        """
        for request in requests:
            for instance in request.instances:
                instance.resps = [answers[id(instance)]]
        every = [instance for request in requests for instance in request.instances]
        for each in self.task._filters:
            each.apply(every)
        names = [each.name for each in self.task._filters]
        if kept is not None and kept not in names:
            raise DataError(f"task.filter: {self.name} has {', '.join(names)}, got {kept!r}")
        return [self._value(request, metric, kept or names[0]) for request in requests]

    def _value(self, request: Request, metric: str, kept: str) -> Any:
        if any(not _is_finite(instance.resps[0]) for instance in request.instances):
            return math.nan
        results = [instance.filtered_resps[kept] for instance in request.instances]
        found = self.task.process_results(request.row.values, results)
        if metric not in found:
            raise TaskError(f"task.metric: {self.name} gives {', '.join(found)} for {request.row.place}, not {metric}")
        return found[metric]


def _is_finite(answer: Any) -> bool:
    if answer is None:
        return False
    plain = number(answer[0] if isinstance(answer, tuple) else answer)
    return plain is None or math.isfinite(plain)


def _first(gold: Any, choices: Sequence[str] | None) -> Any:
    first = gold[0] if isinstance(gold, list) and gold else gold
    return choices[first] if choices is not None and isinstance(first, int) else first


def _place(gold: Any, choices: Sequence[str] | None) -> int:
    """Return the place of the right choice. Raises DataError where there is none."""
    first = gold[0] if isinstance(gold, list) and gold else gold
    if isinstance(first, str) and choices is not None and first in choices:
        return choices.index(first)
    if not isinstance(first, int) or (choices is not None and not 0 <= first < len(choices)):
        raise DataError(f"task.name: a document has the answer {shown(first)}, which is none of its choices")
    return first


# ---- loading


@lru_cache(maxsize=8)
def loaded(
    name: str, include_path: str | None, shots: int | None, seed: int, run_code: bool, download: bool
) -> LmEvalTask:
    """Load a task. Raises TaskError where lm-eval is not installed, DataError where it is refused or cannot be made."""
    found = described_task(name, include_path)
    require_harmless(found, name, run_code, download)
    from lm_eval.tasks import TaskManager

    try:
        _sandbox_templates()
        with _quiet(), _offline(not download):
            task = TaskManager(include_defaults=False).load(str(found.path))["tasks"][name]
            made = LmEvalTask(task, name, shots, seed)
            _ = made.rows
    except ObjectiveError:
        raise
    except Exception as error:  # of lm-eval, of datasets, and of code beside a yaml
        raise DataError(f"task.name: lm-eval cannot make {name}: {described(error)[:300]}") from error
    if getattr(task, "MULTIMODAL", False):
        raise DataError(f"task.name: {name} shows images or plays sound, which is not supported")
    return made


def _sandbox_templates() -> None:
    """Let lm-eval render templates in Jinja's sandbox: by itself it would let those of a stranger's yaml run code."""
    import lm_eval.utils
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = lm_eval.utils.env
    if not isinstance(plain, ImmutableSandboxedEnvironment):
        safe = ImmutableSandboxedEnvironment(
            loader=plain.loader, undefined=plain.undefined, keep_trailing_newline=plain.keep_trailing_newline
        )
        safe.filters.update(plain.filters)
        lm_eval.utils.env = safe


def note_files(name: str, include_path: str | None) -> None:
    """Open the files of a task, so that a study notes them as inputs though lm-eval may have read them earlier."""
    for file in files_of(described_task(name, include_path)):
        file.open("rb").close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Let lm-eval and ``datasets`` say only what is wrong."""
    import datasets

    datasets.disable_progress_bars()
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Let libraries fetch nothing meanwhile."""
    import datasets.config
    import huggingface_hub.constants

    places = ((datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, wanted or getattr(module, name))
        yield
    finally:
        for (module, name), value in zip(places, before):
            setattr(module, name, value)
