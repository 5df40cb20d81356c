"""Optuna's storage, which waits for a database that is away for a while: restarted, failed over, or cut off.

A call is made again, after growing pauses. What was written although its answer was lost is recognised: a trial that is
there since, an outcome that was told. So nothing is written twice. The storage has one writer, who holds its lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import TrialUserAttributeModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from typing_extensions import override

from search.executors.signals import deferred
from search.study.store_errors import causes, store_failed

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between two attempts: a minute together."""

AWAY = {"57P01", "57P02", "57P03"}
"""SQLSTATEs of a server that shuts down, crashed, or starts; those of class 08 are of the connection."""
BUSY = {"SQLITE_BUSY", "SQLITE_LOCKED"}
"""Names of sqlite's errors where another process writes for longer than its timeout."""


_FAILURES = (StorageInternalError, SQLAlchemyError)
"""The exceptions that Optuna raises for a database, and those that reach it from below."""


class PatientStorage(RDBStorage):
    """A storage whose calls are made again while the database is away."""

    _waiting = False

    @override
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        before = self._patiently(lambda _: self._count(study_id))

        def create(again: bool) -> FrozenTrial:
            if again and self._count(study_id) > before:
                return self.get_trial(self.get_trial_id_from_study_id_trial_number(study_id, before))
            return super(PatientStorage, self)._create_new_trial(study_id, template_trial)

        return self._patiently(create)

    @override
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        def tell(again: bool) -> bool:
            if again and state is TrialState.RUNNING and self.get_trial(trial_id).state is TrialState.RUNNING:
                return True  # ours: nobody else may write
            try:
                return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                told = self.get_trial(trial_id)
                if again and told.state == state and told.values == (None if values is None else list(values)):
                    return True
                raise

        return self._patiently(tell)

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Set several attributes of a trial in one transaction."""

        def write(_again: bool) -> None:
            with _create_scoped_session(self.scoped_session, True) as session:
                for key, value in attributes.items():
                    self._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial_id, key, value)

        self._patiently(write)

    def _last_time(self, call: Callable[[bool], T]) -> T:
        try:
            return _whole(call, True)
        except _FAILURES as error:
            raise store_failed(self.url, error) from error

    def _count(self, study_id: int) -> int:
        """Return how many trials a study has; Optuna's own count reads them all."""
        with self.engine.connect() as connection:
            counted = text("SELECT COUNT(*) FROM trials WHERE study_id = :study")
            return int(connection.execute(counted, {"study": study_id}).scalar_one())

    def _patiently(self, call: Callable[[bool], T]) -> T:
        """Return what ``call`` returns, which is told whether it is made again; calls within calls do not wait."""
        if self._waiting:
            return call(False)
        self._waiting = True
        try:
            for attempt, pause in enumerate(PAUSES):
                try:
                    return _whole(call, attempt > 0)
                except _FAILURES as error:
                    if not is_away(error):
                        raise store_failed(self.url, error) from error
                    if attempt == 3:
                        log.warning("the study's storage does not answer; waiting for it, a minute at most")
                    time.sleep(pause)
            return self._last_time(call)
        finally:
            self._waiting = False


def _whole(call: Callable[[bool], T], again: bool) -> T:
    """Return what ``call`` returns; a signal waits for its end, or it would leave a transaction open, and its lock."""
    with deferred():
        return call(again)


def is_away(error: BaseException) -> bool:
    """Return whether ``error`` says that the database could not be reached, or was busy, and may be there again."""
    return any(_is_away(each) for each in causes(error))


def _is_away(error: BaseException) -> bool:
    if isinstance(error, PendingRollbackError):  # Optuna went on in a transaction whose connection was lost
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    name, state = (getattr(error.orig, each, "") for each in ("sqlite_errorname", "sqlstate"))
    return name in BUSY or state is None or state in AWAY or state.startswith("08")


def _patient(name: str) -> Callable[..., Any]:
    def method(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self._patiently(lambda _: getattr(RDBStorage, name)(self, *arguments, **named))

    return method


CACHED = {"_set_trial_param", "_get_best_trial_id", "_get_trials"}
"""Methods that Optuna's cache before a storage calls, beside those that every storage has."""
CALLS = ("create_", "delete_", "get_", "set_")

for _name in CACHED | {name for name in dir(BaseStorage) if name.startswith(CALLS)}:
    if _name not in vars(PatientStorage):
        setattr(PatientStorage, _name, _patient(_name))
