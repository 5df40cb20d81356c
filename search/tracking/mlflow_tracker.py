"""Mirrors studies in MLflow: one experiment per project, a parent run per study, a child run per trial.

Runs are looked up by their uid tags before they are created, so that sending a trial twice makes no second run. A trial
costs one ``log_batch``. The schema is created under a file lock, since MLflow's migrations race when two jobs of a
sweep start on a fresh database.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import override

from objectives.measuring.stored_facts import texts_of
from search.front.realised_gain import not_realised
from search.records.names import bounded
from search.records.secrets import is_secret, without_secrets
from search.records.stop_reason import StopReason
from search.records.storage_url import clean_url, redacted, sqlite_url
from search.records.trial import TrialRecord
from search.terminal.plain_text import inert
from search.tracking.protocol import Mirror, StudyEnd, StudyHeader, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

STUDY, TRIAL = "paretune.study_uid", "paretune.trial_uid"
DEFAULT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MlflowTracker(Tracker):
    """Mirrors studies in MLflow.

    ``uri``: tracking server or database; by default ``sqlite:///<home>/mlflow.db`` with artifacts beside it.
    """

    uri: str | None = None

    @override
    def open(self, header: StudyHeader) -> MlflowMirror:
        """Connect to MLflow; the study's run is created with its first trial, so that a failed start leaves none."""
        mirror = MlflowMirror(self.uri, header)
        _ = mirror.experiment
        return mirror


class MlflowMirror(Mirror):
    """The runs of one study in MLflow.

    ``children``: the runs of its trials by the trials' uids; ``metrics``: what each of these runs holds, as last read
    or sent.
    """

    def __init__(self, uri: str | None, header: StudyHeader) -> None:
        self.header = header
        self.uri = clean_url(uri, "tracker.uri") if uri else sqlite_url(header.home / "mlflow.db")
        self.children: dict[str, str] = {}
        self.metrics: dict[str, Mapping[str, float]] = {}

    @cached_property
    def client(self) -> MlflowClient:
        """Connect to MLflow, create its schema where it is missing, and return the client."""
        os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
        self.header.home.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self.header.home / ".mlflow.lock")):
            from mlflow import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)  # its migrations log a page of INFO
            with _default_root(self._artifacts("Default")):
                client = MlflowClient(tracking_uri=self.uri)
                client.search_experiments(max_results=1)
            return client

    def _artifacts(self, project: str) -> str | None:
        """Return the folder for files of a project as a URI, or None for a server, which decides itself."""
        folder = self.header.home / "artifacts" / bounded(project)
        return folder.as_uri() if self.uri.startswith("sqlite") else None

    @cached_property
    def experiment(self) -> str:
        """Find or create the project's experiment and return its id."""
        client = self.client
        with FileLock(str(self.header.home / ".mlflow.lock")):
            found = client.get_experiment_by_name(self.header.project)
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(found.experiment_id)
                return str(found.experiment_id)
            artifacts = self._artifacts(self.header.project)
            return str(client.create_experiment(self.header.project, artifact_location=artifacts))

    @cached_property
    def parent(self) -> str:
        """Find or create the study's run and return its id.

        The runs of its trials are read, so that only those are added that are missing.
        """
        first, *others = sorted(
            self._search(f"tags.`{STUDY}` = '{self.header.uid}'"), key=lambda run: run.info.start_time
        ) or [self._new_parent()]
        for other in others:  # the answer to its creation was lost
            self.client.delete_run(other.info.run_id)
        parent = str(first.info.run_id)
        self._read_children(parent)
        self.client.update_run(parent, status="RUNNING")
        return parent

    def _new_parent(self) -> Run:
        tags = {STUDY: self.header.uid, "mlflow.runName": self.header.name}
        run = self.client.create_run(self.experiment, tags=tags)
        self._batch(run.info.run_id, params=flatten(self.header.resolved))
        self.client.log_dict(run.info.run_id, without_secrets(self.header.resolved), "config.yaml")
        return run

    def _read_children(self, parent: str) -> None:
        """Note the runs of the trials, one for each: a second one, and one that was never ended, are deleted."""
        for run in self._search(f"tags.`{TRIAL}` LIKE '{self.header.uid}:%'"):
            uid = run.data.tags[TRIAL]
            if not uid.startswith(f"{self.header.uid}:"):  # LIKE knows wildcards, and no letter's case
                continue
            if run.info.status == "RUNNING" or uid in self.children:  # its writer, or the answer to it, was lost
                self.client.delete_run(run.info.run_id)
                continue
            self.children[uid], self.metrics[uid] = run.info.run_id, run.data.metrics
            if run.data.tags.get("mlflow.parentRunId") != parent:  # that one was deleted
                self.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)

    def _search(self, query: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    @override
    def log(self, record: TrialRecord) -> None:
        """Create the run of a trial where there is none yet."""
        parent = self.parent
        if record.uid in self.children:
            return
        tags = {
            TRIAL: record.uid,
            "mlflow.parentRunId": parent,
            "mlflow.runName": _run_name(record),
            "state": record.state,
            "is_baseline": str(record.is_baseline).lower(),
        }
        optional = {"reason": record.reason, "message": record.message, "notes": "; ".join(map(str, record.notes))}
        optional["no_realised_gain"] = not_realised(record.facts.gains, record.metrics)
        optional["cached_from"] = "" if record.cached_from is None else str(record.cached_from)
        tags |= {
            inert(name): inert(value)[:5000] for name, value in {**optional, **texts_of(record.facts)}.items() if value
        }
        run = self.client.create_run(self.experiment, tags=tags).info.run_id
        self._batch(run, params={**record.params, "trial": record.number}, metrics=record.metrics)
        self.client.set_terminated(run, "FINISHED" if record.state == "complete" else "FAILED")
        self.children[record.uid], self.metrics[record.uid] = run, record.metrics

    def _require_parent(self) -> None:
        """Read everything anew where somebody deleted the experiment or the study's run meanwhile."""
        if self.client.get_run(self.parent).info.lifecycle_stage == "deleted":
            self.children.clear()
            del self.parent, self.experiment

    def _settle(self, record: TrialRecord) -> None:
        """Log the final metrics of a trial as the latest values; the trial's own values stay in the history."""
        run = self.children[record.uid]
        new = _changed(self.metrics[record.uid], record.metrics)
        if new:
            self._batch(run, metrics=new, step=1)
            self.metrics[record.uid] = record.metrics
        if "speedup.trial" in record.metrics:  # timed again: what was said of the first timing no longer holds
            told = {
                "speed_reason": "",
                "no_realised_gain": not_realised(record.facts.gains, record.metrics),
                "notes": "; ".join(map(str, record.notes)),
                **texts_of(record.facts),
                "confirmed": str(record.confirmed).lower(),
            }
            for name, value in told.items():
                self.client.set_tag(run, inert(name), inert(value)[:5000])

    def _batch(
        self,
        run: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
    ) -> None:
        import time

        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        self.client.log_batch(
            run,
            metrics=[Metric(name, value, now, step) for name, value in (metrics or {}).items()],
            params=[Param(inert(name), inert(str(value))[:6000]) for name, value in (params or {}).items()],
        )

    @override
    def close(self, result: StudyEnd) -> str:
        """Log the trials that are missing, then summary and report on the study's run; return a line for the user."""
        self._require_parent()
        for record in result.records:
            self.log(record)
            self._settle(record)
        self._batch(self.parent, metrics=result.summary)
        for name, value in result.tags.items():
            self.client.set_tag(self.parent, inert(name), inert(value))
        for file in result.files:
            self.client.log_artifact(self.parent, str(file), "report")
        interrupted = result.stop_reason is StopReason.INTERRUPTED
        self.client.set_terminated(self.parent, "KILLED" if interrupted else "FINISHED")
        return f"MLflow: {redacted(self.uri)}, experiment {self.header.project}, run {self.header.name}"


def _changed(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of ``after`` that are new or differ."""
    return {name: value for name, value in after.items() if before.get(name) != value}


@contextmanager
def _default_root(uri: str | None) -> Iterator[None]:
    """Let a new database's own experiment lie at ``uri``: MLflow pastes the working directory into SQL."""
    if uri is None or DEFAULT_ROOT in os.environ:
        yield
        return
    os.environ[DEFAULT_ROOT] = uri
    try:
        yield
    finally:
        del os.environ[DEFAULT_ROOT]


def _run_name(record: TrialRecord) -> str:
    """Return the name of a trial's run, such as ``trial 7: ratio=0.1 bits=8 batch_size=4``."""
    cell = inert(" ".join(f"{path.rpartition('.')[2]}={value}" for path, value in record.params.items()))
    return f"trial {record.number}: {cell}" if cell else f"trial {record.number}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of ``tree`` by dotted path, without those that look like secrets; lists stay whole."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            leaves.update(flatten(value, path + "."))
        elif name not in ("storage", "uri") and not is_secret(name, value):
            leaves[path] = value
    return leaves
