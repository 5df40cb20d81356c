"""One fresh process that answers for many: it imports once, then forks for every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

FORKS = """
import json, os, sys, traceback
codes = []
for folder, out, err, words in json.load(sys.stdin):
    child = os.fork()
    if not child:
        os.chdir(folder)
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
        code = 1
        try:
            code = main(words)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str


def answers_of(code: str, commands: Sequence[tuple[Path, Sequence[str]]], **environment: str) -> list[Answer]:
    """Run ``code``, which defines ``main(words)``, and call that in a fork for each (working directory, words)."""
    with tempfile.TemporaryDirectory() as shown:
        places = [(f"{shown}/out{number}", f"{shown}/err{number}") for number in range(len(commands))]
        asked = [(str(folder), *place, list(words)) for (folder, words), place in zip(commands, places, strict=True)]
        done = subprocess.run(
            [sys.executable, "-c", code + FORKS],
            input=json.dumps(asked),
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=230,
        )
        assert done.returncode == 0, done.stderr
        codes = json.loads(done.stdout)
        return [
            Answer(code, *(Path(file).read_text(encoding="utf-8") for file in place))
            for code, place in zip(codes, places, strict=True)
        ]
