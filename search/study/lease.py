"""One driver per study, wherever it runs: a lease in the study's own store.

A row of the store says who drives the study and until when, by the clock of the store, so that drivers need not agree
on the time. A thread renews it. Who finds it expired takes it over with the next token, and so does who finds that its
owner was a process of this machine that is gone. A driver that was stopped meanwhile (SIGSTOP, a suspended machine) may
come back: so every commit looks at the row in its own transaction, and raises LeaseLost where the token is another's.
Nothing is written after the successor began.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.storages import RDBStorage
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    event,
    insert,
    inspect,
    literal_column,
    select,
    update,
)
from sqlalchemy.engine import Engine, Row
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, Session

from search.errors import ConfigError, LeaseLost, StudyConflict
from search.study.store_errors import store_failed

log = logging.getLogger(__name__)

SECONDS = 30.0
"""Seconds that a lease holds which nobody renews."""
RENEWALS = 3
"""Renewals in that time."""
TRIES = 3
"""Attempts at a lease that another driver takes, or gives back, at the same moment."""

CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())",
    "mysql": "unix_timestamp(now(6))",
}
"""Time of the store, seconds, by the dialect of its SQL; MySQL's was not tried."""

LEASES = Table(
    "paretune_leases",
    MetaData(),
    Column("study", String(512), primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),
    Column("host", String(256), nullable=False),
    Column("machine", String(128), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("began", Double, nullable=False),
)
"""``token``: which driver of the study it is, from 1. ``machine``, ``pid``, ``began``: see :class:`Process`."""


@dataclass(frozen=True)
class Process:
    """A process: the ``host`` for a person; ``machine``: where its ``pid`` means this process; when it ``began``."""

    host: str
    machine: str
    pid: int
    began: float

    @classmethod
    def this(cls) -> Process:
        """Return the process that asks."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        numbered = os.readlink("/proc/self/ns/pid")  # containers number their processes each for itself
        return cls(socket.gethostname(), f"{boot} {numbered}", os.getpid(), psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Return whether it is known to have ended: it ran where we run, and nothing runs under its number since."""
        if self.machine != Process.this().machine or not Path("/proc/1").exists():  # other users' may be hidden
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = abs(process.create_time() - self.began) > 1.0
            return is_another or process.status() == psutil.STATUS_ZOMBIE  # ended, and its parent has not asked how
        except psutil.NoSuchProcess:
            return True


class Lease:
    """The right to drive the study ``study`` of ``storage``; ``seconds``: how long it holds unless it is renewed."""

    def __init__(self, storage: RDBStorage, study: str, seconds: float | None = None) -> None:
        self._url = storage.url
        self._engine, self._sessions = storage.engine, storage.scoped_session.session_factory
        self._study, self._seconds = study, SECONDS if seconds is None else seconds
        dialect = self._engine.dialect.name
        if dialect not in CLOCKS:
            raise ConfigError(f"storage: expected a database of {', '.join(CLOCKS)}, got {dialect}")
        self._now: Any = literal_column(CLOCKS[dialect])
        self._row = LEASES.c.study == study
        self._token = 0
        self._over = threading.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease meanwhile. Raises StudyConflict where another driver has it.

        From then on every commit of the storage raises LeaseLost where another driver took it over. So does whatever
        else fails then: who comes back meets trials that the other one finished.
        """
        self._take()
        listeners: dict[str, Callable[..., None]] = {
            "after_flush": _note_flush,
            "do_orm_execute": _note_statement,
            "before_commit": self._require,
        }
        for name, listener in listeners.items():
            event.listen(self._sessions, name, listener)
        renewing = threading.Thread(target=self._renew_often, name="lease", daemon=True)
        renewing.start()
        try:
            yield
        except LeaseLost:
            raise
        except Exception as error:
            self._blame(error)
            raise
        finally:
            self._over.set()
            renewing.join()
            for name, listener in listeners.items():
                event.remove(self._sessions, name, listener)
            self._give_back()

    def _take(self) -> None:
        try:
            self._take_it()
        except SQLAlchemyError as error:
            raise store_failed(self._url, error) from error

    def _take_it(self) -> None:
        _make_table(self._engine)
        for _ in range(TRIES):
            with self._engine.connect() as connection:
                before = connection.execute(self._asked()).first()
            if before is not None and before.left > 0 and not _process(before).is_gone():
                raise StudyConflict(_refusal(self._study, before))
            if self._took(before):
                return
        raise StudyConflict(f"study_name: {self._study} is being begun by several processes; try again")

    def _asked(self) -> Any:
        return select(LEASES, (LEASES.c.expires - self._now).label("left")).where(self._row)

    def _took(self, before: Row[Any] | None) -> bool:
        """Take the lease that was ``before`` when it was read; return False where another driver was quicker."""
        token = 1 if before is None else before.token + 1
        values = {"token": token, "expires": self._now + self._seconds, **asdict(Process.this())}
        unchanged = () if before is None else (LEASES.c.token == before.token, LEASES.c.expires == before.expires)
        try:
            with self._engine.begin() as connection:
                if before is None:
                    connection.execute(insert(LEASES).values(study=self._study, **values))
                elif not connection.execute(update(LEASES).where(self._row, *unchanged).values(**values)).rowcount:
                    return False
        except IntegrityError:  # another driver made the row
            return False
        if before is not None and before.left > 0:
            log.info("study %s: its driver, %s, is gone", self._study, _told(before))
        self._token = token
        return True

    def _renew_often(self) -> None:
        while not self._over.wait(self._seconds / RENEWALS):
            try:
                if not self._extend(self._now + self._seconds):
                    return  # it is another's: the next commit says so
            except SQLAlchemyError as error:  # a store that is away may come back in time
                log.debug("the lease of %s was not renewed: %s", self._study, error)

    def _extend(self, until: Any) -> bool:
        """Set until when the lease holds; return False where it is another's."""
        ours = update(LEASES).where(self._row, LEASES.c.token == self._token).values(expires=until)
        with self._engine.begin() as connection:
            return connection.execute(ours).rowcount == 1

    def _give_back(self) -> None:
        try:
            self._extend(0.0)
        except SQLAlchemyError as error:
            log.debug("the lease of %s was not given back: %s", self._study, error)

    def _require(self, session: Session) -> None:
        """Raise LeaseLost where the lease is another's, in the transaction that ``session`` is about to commit.

        A transaction that only read commits nothing.
        """
        session.flush()  # then sqlite lets nobody else write until the commit
        if not session.info.pop(_WROTE, False):
            return
        self._require_ours(session.execute(self._asked().with_for_update(read=True)).first())

    def _blame(self, error: Exception) -> None:
        """Raise LeaseLost from ``error`` where the lease is another's, as far as the store tells."""
        with suppress(SQLAlchemyError), self._engine.connect() as connection:
            self._require_ours(connection.execute(self._asked()).first(), error)

    def _require_ours(self, row: Row[Any] | None, error: Exception | None = None) -> None:
        if row is None or row.token != self._token:
            raise LeaseLost(f"study_name: {self._study} {_taken(row)}; this driver wrote nothing more") from error


_WROTE = "paretune_wrote"
"""The mark of a session that has written since its last commit."""


def _note_flush(session: Session, _context: object) -> None:
    session.info[_WROTE] = True


def _note_statement(state: ORMExecuteState) -> None:
    if not state.is_select:
        state.session.info[_WROTE] = True


def driver_of(storage: RDBStorage, study: str) -> str | None:
    """Return, in words, which process drives ``study`` now and until when it holds the lease; None where none does."""
    engine = storage.engine
    if not inspect(engine).has_table(LEASES.name):
        return None
    left = (LEASES.c.expires - literal_column(CLOCKS[engine.dialect.name])).label("left")
    with engine.connect() as connection:
        row = connection.execute(select(LEASES, left).where(LEASES.c.study == study)).first()
    if row is None or row.left <= 0 or _process(row).is_gone():
        return None
    return f"{_told(row)}, for {math.ceil(row.left)} s more"


def _make_table(engine: Engine) -> None:
    try:
        LEASES.create(engine, checkfirst=True)
    except SQLAlchemyError:
        if not inspect(engine).has_table(LEASES.name):  # else another driver made it at the same moment
            raise


def _process(row: Row[Any]) -> Process:
    return Process(row.host, row.machine, row.pid, row.began)


def _told(row: Row[Any]) -> str:
    return f"process {row.pid} on {row.host}"


def _taken(row: Row[Any] | None) -> str:
    if row is None:
        return "has no lease any more: its row was deleted"
    return f"was taken over by {_told(row)} while this driver did not answer"


def _refusal(study: str, row: Row[Any]) -> str:
    return (
        f"study_name: {study} is being run by {_told(row)}; it may be taken over in {math.ceil(row.left)} s, unless "
        "that process goes on; choose another study_name to run beside it"
    )
