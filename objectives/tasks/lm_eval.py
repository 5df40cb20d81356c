"""Any task of lm-evaluation-harness, with its own prompts and metrics, scored through the runners of this package."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import NotFinite, TaskError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded, Packaged, Remarking, Supplied
from objectives.protocols.task import PartiallyScorable
from objectives.settings import Count, Name, Natural
from objectives.tasks.answers import shown
from objectives.tasks.batching import AHEAD, limit_of, prompts_ids, same_length
from objectives.tasks.data.columns import texts_of
from objectives.tasks.data.files import read_rows
from objectives.tasks.data.source import ROWS_FORBID
from objectives.tasks.data.split import Divided, divide_one, drawn
from objectives.tasks.finite import cause, number
from objectives.tasks.lm_eval_answers import answered, lengths_of
from objectives.tasks.lm_eval_task import LmEvalTask, Request, loaded, note_files
from objectives.tasks.overlap import Excerpts, Exposed, excerpt
from objectives.tasks.partial_scores import Reader, batches, merged, require_rows, unique
from objectives.tasks.prompting import cut_remarks
from objectives.tasks.resampling import FEWEST, REPLICATES, replicates_by, spread
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


LONGEST = 1024
"""Tokens of a prompt at most, where nobody says."""


def _installed() -> str:
    try:
        return version("lm-eval")
    except PackageNotFoundError:
        return ""


@settings(frozen=True, kw_only=True, config=ROWS_FORBID)
class LmEval(PartiallyScorable, Bounded, Supplied, Remarking, Packaged, Exposed):
    """Scores a decoder on a task of an installed lm-eval.

    ``name``: the task; ``include_path``: a folder with yamls of one's own. ``num_fewshot``: examples in a prompt, by
    default what the task says. ``metric``: by its name there; ``filter``: whose answers count, where it has several.
    ``limit``: how many documents are scored, drawn by ``seed``. Documents of the training split calibrate, with their
    right answers, or else some of those that could be scored; or the texts of a file ``calibration``, in its column
    ``text``. A metric that is no mean of examples is asked again for ``replicates`` resamples of them. ``run_code``:
    whether Python code beside a yaml of ``include_path`` is run; ``download``: whether lm-eval may fetch documents.
    Prompts are cut at their beginning to ``tokens`` tokens; by default what the model holds, and 1024 at most.
    """

    name: Name
    include_path: Name | None = None
    num_fewshot: Natural | None = None
    metric: Name = "acc"
    filter: Name | None = None
    limit: Count | None = None
    seed: Natural = 0
    calibration_data: Name | None = Field(default=None, validation_alias="calibration")
    calibration_rows: Count = 64
    text: Name = "text"
    replicates: Annotated[int, Field(strict=True, ge=FEWEST)] = REPLICATES
    run_code: bool = False
    download: bool = False
    tokens: Count | None = None
    batch_rows: Count = 8
    harness: str = Field(default_factory=_installed, init=False)

    @property
    @override
    def head(self) -> Head:
        return "causal_lm"

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return () if self.tokens is None else (Span(("tokens",), (self.tokens,)),)

    @property
    @override
    def packages(self) -> tuple[str, ...]:
        """Return what lm-eval's own metrics are computed with; its own version is a setting."""
        return ("tokenizers", "rouge-score", "sacrebleu", "scikit-learn")

    @override
    def require_documents(self) -> None:
        self._task().require_metric(self.metric)
        divided = self._divided()
        for row in divided.scored[:1]:
            self._task().request(row)

    @override
    def remarks(self) -> tuple[str, ...]:
        remark = self._divided().remark
        return (remark,) if remark else ()

    @override
    def calibration(self, model: LoadedModel) -> Domains:
        """Return prompts with their right answers, or the texts of the calibration file."""
        most = limit_of(model.tokenizer, self.tokens, LONGEST)
        ids = [ids[-most:] for ids in prompts_ids(model.tokenizer, self._calibrating())]
        require_rows(model, max(max(row, default=0) for row in ids))
        return {"task": same_length(ids, self.batch_rows)}

    @override
    def evaluate(self, model: Runner) -> Score:
        """Score ``model``; an example is what lm-eval gives for a document."""
        return merged(list(self.parts(model, range(len(self._divided().scored)))))

    @override
    def parts(self, model: Runner, order: Sequence[int]) -> Iterator[Score]:
        task, rows = self._task(), self._divided().scored
        names = unique(row.place for row in rows)
        size = AHEAD if task.is_mean(self.metric) else max(AHEAD, len(order))
        most = limit_of(model.tokenizer, self.tokens, LONGEST)
        for chosen in batches(order, size):
            requests = [task.request(rows[index]) for index in chosen]
            instances = [instance for request in requests for instance in request.instances]
            answers = answered(model, instances, most, self.batch_rows)
            values = task.values(requests, answers, self.metric, self.filter)
            score = self._mean(values) if task.is_mean(self.metric) else self._of_all(values, task, model)
            yield replace(score, ids=tuple(names[index] for index in chosen))

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        task, divided = self._task(), self._divided()
        first = [excerpt(f"calibration {place}", [text]) for place, text in enumerate(self._calibrating(), start=1)]
        requests = [task.request(row) for row in divided.scored]
        last = [excerpt(each.row.place, ["".join(task.golden(each))]) for each in requests]
        return Excerpts(first, last, remarks=self._cuts(model, requests))

    def _cuts(self, model: Reader, requests: Sequence[Request]) -> tuple[str, ...]:
        """Return lines on the prompts and calibration rows that are cut."""
        most = limit_of(model.tokenizer, self.tokens, LONGEST)
        lengths = lengths_of(model, [instance for each in requests for instance in each.instances], most)
        rows = list(map(len, prompts_ids(model.tokenizer, self._calibrating())))
        return (
            *cut_remarks("task.tokens", lengths, most, "prompts are cut at their beginning"),
            *cut_remarks("task.tokens", rows, most, "calibration rows are cut at their beginning"),
        )

    # ---- scores

    def _mean(self, values: Sequence[Any]) -> Score:
        examples = tuple(self._plain(value) for value in values)
        return Score(float(np.mean(examples)), 0.0, examples)

    def _of_all(self, values: Sequence[Any], task: LmEvalTask, model: Runner) -> Score:
        """Return the metric of all documents together, with replicates; an example is the metric of one alone."""
        if any(isinstance(value, float) and math.isnan(value) for value in values):
            raise NotFinite(f"task: an answer is not finite{cause(model)}")
        whole = task.whole(self.metric)
        with warnings.catch_warnings():  # one document, or the same many times, may well lack a class
            warnings.simplefilter("ignore")
            alone = tuple(_or_0(whole([value])) for value in values)
            resampled = replicates_by(lambda places: whole([values[at] for at in places]), len(values), self.replicates)
            return Score(whole(values), spread(resampled), alone, replicates=resampled)

    def _plain(self, value: Any) -> float:
        plain = number(value) if not isinstance(value, bool) else float(value)
        if plain is None:
            raise TaskError(f"task.metric: {self.name} gives {shown(value)} for {self.metric}, not a number")
        return plain

    # ---- documents

    def _task(self) -> LmEvalTask:
        note_files(self.name, self.include_path)
        return loaded(self.name, self.include_path, self.num_fewshot, self.seed, self.run_code, self.download)

    def _divided(self) -> Divided:
        """Return the documents that calibrate, unless a file does, and those that are scored."""
        task = self._task()
        if self.calibration_data is not None:
            return Divided((), drawn(task.rows, self.limit, self.seed))
        if task.training:
            first = drawn(task.training, self.calibration_rows, self.seed)
            return Divided(first, drawn(task.rows, self.limit, self.seed))
        return divide_one(task.rows, self.name, rows=self.calibration_rows, limit=self.limit, seed=self.seed)

    def _calibrating(self) -> list[str]:
        if self.calibration_data is not None:
            rows = drawn(read_rows(self.calibration_data, "task.calibration"), self.calibration_rows, self.seed)
            return texts_of(rows, "task.text", self.text)
        task = self._task()
        return ["".join(task.golden(task.request(row))) for row in self._divided().calibration]


def _or_0(value: float) -> float:
    return value if math.isfinite(value) else 0.0
