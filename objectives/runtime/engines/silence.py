"""Converters print, and report to their makers. A study's output is not theirs, and it sends nothing anywhere."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def without_telemetry() -> None:
    """OpenVINO and nncf, imported from now on, do without the package that sends what they are used for."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def keep_streams_open() -> None:
    """absl, which engines bring along, would close what was stderr when it was imported as soon as logging is set up
    anew.
    """
    absl = sys.modules.get("absl.logging")
    if absl is not None:
        absl.get_absl_handler().python_handler.stream = sys.__stderr__


@contextmanager
def silence() -> Iterator[None]:
    """Send what is printed meanwhile, by C++ code too, to nowhere; of an error the last lines are kept in its notes."""
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        kept = [os.dup(descriptor) for descriptor in (1, 2)]
        try:
            for descriptor in (1, 2):
                os.dup2(sink.fileno(), descriptor)
            yield
        except Exception as error:
            sink.seek(0)
            said = sink.read().decode(errors="replace").strip().splitlines()
            error.add_note("\n".join(said[-5:]))
            raise
        finally:
            keep_streams_open()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for descriptor, old in zip((1, 2), kept):
                os.dup2(old, descriptor)
                os.close(old)
