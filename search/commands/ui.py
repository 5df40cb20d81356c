"""``paretune ui [home=mlruns] [port=5000]``: serve MLflow's pages with the studies of ``home`` until stopped (Ctrl-C).

The pages can be opened on this machine only, at the address that it prints.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

from search.commands.stored_study import pairs
from search.config.overrides import absolute
from search.errors import ConfigError
from search.records.storage_url import sqlite_url


def main(arguments: list[str]) -> int:
    """Serve MLflow's pages on loopback until stopped; without MLflow's job runners it starts in 10 s and 0.5 GB."""
    given = pairs(arguments)
    home = absolute(given.pop("home", "mlruns"))
    port = given.pop("port", "5000")
    if given:
        raise ConfigError(f"{next(iter(given))}: unknown key; known: home, port")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"port: expected an integer in 1..65535, got {port!r}")
    signal.signal(signal.SIGTERM, _interrupt)
    database = home / "mlflow.db"
    if not database.is_file():
        raise ConfigError(f"home: {database} does not exist; run a study first, or give home=<folder>")
    print(f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning  (Ctrl-C stops)", flush=True)
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    command += [
        "--backend-store-uri",
        sqlite_url(database),
        "--default-artifact-root",
        (home / "artifacts").as_uri(),
    ]
    command += ["--allowed-hosts", f"localhost:{port},127.0.0.1:{port},localhost,127.0.0.1"]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        _stop(process)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with all its workers: they share its session, and it does not end them itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
