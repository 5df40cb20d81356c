"""Engines leave the streams of their process open."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import io, logging.config, sys
stream = sys.stderr = io.StringIO()  # as test runners and notebooks do
{work}
sys.stderr = sys.__stderr__
logging.config.dictConfig({{"version": 1, "disable_existing_loggers": False}})
assert not stream.closed
"""
OPENVINO = """
from pathlib import Path
from objectives.runtime.openvino import OpenVino
try:
    OpenVino().open(Path("none"), None, 1)
except Exception:
    pass
"""
NNCF = """
from objectives.runtime.engines.silence import silence, without_telemetry
without_telemetry()
with silence():
    import nncf
"""


@pytest.mark.parametrize("work", [OPENVINO, NNCF], ids=["openvino", "nncf"])
def test_setting_up_logging_after_an_engine_closes_nothing(work: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(work=work)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
