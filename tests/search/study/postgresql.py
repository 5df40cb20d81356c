"""A real server of PostgreSQL for tests, in a folder and on a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))


@dataclass
class Server:
    """PostgreSQL of Debian in a folder of its own, on loopback."""

    folder: Path
    port: int
    control: Path

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://paretune:secret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, or start it again: its predecessor may still let go of its memory."""
        for _ in range(20):
            if self._control("start").returncode == 0:
                return
            time.sleep(0.2)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """End it as a crash would."""
        self._control("stop", "-m", "immediate")

    def drop_connections(self) -> None:
        """Cut off everyone, as an administrator or a proxy would."""
        import psycopg

        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    def _control(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        command = [self.control, "-D", self.folder / "data", "-l", self.folder / "log", "-w", "-o", options, *words]
        return subprocess.run([*_as_nobody(), *map(str, command)], stdout=subprocess.DEVNULL, cwd=self.folder)


def _as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Start a server for the tests of this process, or skip them where there is none to start."""
    if not PLACES:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="paretune-postgresql-", dir="/tmp"))  # short: a socket's path has 107 bytes
    folder.chmod(0o755)
    if os.getuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    found = Server(folder, port, PLACES[-1])
    initdb = [PLACES[-1].with_name("initdb"), "-D", folder / "data", "-U", "paretune", "-A", "trust", "--no-sync"]
    subprocess.run([*_as_nobody(), *map(str, initdb)], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    found.start()
    yield found
    found.stop()
    shutil.rmtree(folder)
