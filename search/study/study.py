"""The study: ask, evaluate, tell, until the budget is spent or no cell is left that is worth a trial."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.study import Study

from search.config.study_config import StudyConfig
from search.errors import BaselineFailed, ConfigError, DevicesLost, Interrupted, LeaseLost, StoreFailed
from search.executors.signals import interrupted, unwrapped
from search.front.front import ParetoFront
from search.frontier.certificate import Certificate
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.study import opening, store
from search.study.confirmation import Confirmation
from search.study.lease import Lease
from search.study.loop import Loop
from search.study.progress import Progress
from search.tracking.protocol import Mirror

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """A study as it stands: its trials, its front, and why it stopped."""

    config: StudyConfig
    records: tuple[TrialRecord, ...]
    front: ParetoFront
    machine: Mapping[str, str]
    stop_reason: StopReason
    mirror: Mirror
    confirmation: Confirmation
    certificate: Certificate | None
    interrupted: Interrupted | None = None


def run_study(config: StudyConfig, progress: Progress) -> StudyResult:
    """Run or resume the study.

    Raises ConfigError, StudyConflict, BaselineFailed, LeaseLost, or Interrupted before a baseline.
    """
    with opening.connected(config) as storage, Lease(storage, config.name).held():
        study = opening.open_study(config, config.sampler, storage)
        loop = Loop(config, study, progress)
        stopped = None
        try:
            with unwrapped(), config.executor.start(config.problem) as session:
                loop.open(session)
                store.save_stop(study, StopReason.UNKNOWN)  # a run that is killed says nothing
                stop_reason = loop.run(session)
        except (KeyboardInterrupt, DevicesLost) as error:
            stopped = error if isinstance(error, DevicesLost) else interrupted(error)
            stop_reason = StopReason.INTERRUPTED
            loop.trials.abandon()
            if loop.state.telling.baseline is None:
                loop.drop_mirror()
                raise stopped from None
        except Exception as error:
            _end_without_result(study, loop, error)
            raise
        store.save_stop(study, stop_reason)
        state = loop.state
        state.read_anew()
        return StudyResult(
            config=config,
            records=tuple(state.read()),
            front=state.front(),
            machine=loop.machine,
            stop_reason=stop_reason,
            mirror=loop.trials.mirror,
            confirmation=state.confirmation,
            certificate=loop.certificate(),
            interrupted=stopped,
        )


def _end_without_result(study: Study, loop: Loop, error: Exception) -> None:
    """Leave nothing running, as far as the store takes it."""
    loop.drop_mirror()
    if isinstance(error, (ConfigError, BaselineFailed)):
        opening.discard_if_empty(study)
    elif not isinstance(error, (LeaseLost, StoreFailed)):  # a bug, of ours or of a user's class
        loop.trials.abandon()
