"""Silences converters, which print, and report to their makers.

A study's output is its own, and it sends nothing anywhere.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def without_telemetry() -> None:
    """Make OpenVINO and nncf, imported from now on, do without the package that sends what they are used for."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def keep_streams_open() -> None:
    """Keep absl, which engines bring along, from closing a stream that is not its own.

    As soon as logging is set up anew, it would close what was stderr when it was imported.
    """
    absl = sys.modules.get("absl.logging")
    if absl is not None:
        absl.get_absl_handler().python_handler.stream = sys.__stderr__


@contextmanager
def silence() -> Iterator[None]:
    """Discard what is printed in the block, by C++ code too; an error gets the last lines as a note."""
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
