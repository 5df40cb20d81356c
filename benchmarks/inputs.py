"""What paretune answers to bad input: one line, exit code 2, within seconds, and no file left behind.

    python benchmarks/inputs.py [--only WORDS]

Runs every command of :mod:`bad_inputs` and :mod:`bad_files` in a folder of its own, as a user's shell would, and writes
docs/benchmarks/inputs.md. Exits 1 where an answer is wrong, naming it. Seconds are wall time: wait for a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bad_files import FILES
from bad_inputs import FURTHER, LISTED, Bad
from faulty_checkpoints import build

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "inputs.md"
LIMIT = 15.0
"""Seconds after which a command was not refused."""
STUDY = (
    "run experiment=ci_tiny study_name=mine n_trials=1 confirm=false device=cpu device.threads=1 timing.max_seconds=0.2"
)


@dataclass(frozen=True)
class Answer:
    """What came of one command. ``left``: files that are there afterwards and were not before."""

    code: int
    said: str
    seconds: float
    left: tuple[str, ...]

    def wrong(self, bad: Bad) -> str:
        """Why it is not what was wanted; empty where it is."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        missing = [word for word in bad.words if word not in self.said]
        reasons = [
            f"exit code {self.code}, wanted {bad.code}" if self.code != bad.code else "",
            f"{len(lines)} lines" if len(lines) != 1 else "",
            f"does not say {', '.join(missing)}" if missing else "",
            f"took {self.seconds:.1f} s" if self.seconds > bad.seconds else "",
            f"left {', '.join(self.left[:3])}" if self.left else "",
        ]
        return "; ".join(filter(None, reasons))


def main() -> int:
    """Run all, or those whose description holds ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="inputs-") as scratch:
        base = Path(scratch)
        build(base / "models")
        made_study(base / "study")
        tables = [
            (title, list(answers(base, [bad for bad in bads if only in f"{title}: {bad.what}"])))
            for title, bads in KINDS
        ]
    failed = [
        f"{bad.what}: {answer.wrong(bad)}\n    {answer.said.strip()}"
        for _, rows in tables
        for bad, answer in rows
        if answer.wrong(bad)
    ]
    print("\n".join(failed) or "every answer is one line in time")
    if not only:
        OUT.write_text(page(tables), encoding="utf-8")
    return 1 if failed else 0


KINDS = (("Promised from the start", LISTED), ("Found since", FURTHER), ("Files of rows", FILES))


def made_study(folder: Path) -> None:
    """A folder in which a small study has run."""
    folder.mkdir()
    done = shell(STUDY, folder, seconds=300)
    if done.returncode:
        raise SystemExit(f"the study to ask about did not run:\n{done.stderr}")


def answers(base: Path, bads: Sequence[Bad]) -> Iterator[tuple[Bad, Answer]]:
    """In turn, each in a new folder."""
    for number, bad in enumerate(bads):
        folder = base / f"{number}"
        if bad.study:
            shutil.copytree(base / "study", folder)
        else:
            folder.mkdir()
        for name, content in bad.files:
            (folder / name).write_text(content, encoding="utf-8")
        before, began = files(folder), time.perf_counter()
        done = shell(
            bad.command.replace("{models}", str(base / "models")).replace("{{", "{").replace("}}", "}"), folder
        )
        seconds = time.perf_counter() - began
        said = (done.stderr + done.stdout).replace(str(base), "…").replace(str(Path.home()), "~")
        yield bad, Answer(done.returncode, said, seconds, tuple(sorted(files(folder) - before)))
        shutil.rmtree(folder)


def shell(command: str, folder: Path, seconds: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """``paretune command`` as typed; exit code 124 where it went on for ``seconds``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(OUT.parents[2]), str(folder)]), "COLUMNS": "200"}
    environment.pop("HF_HUB_OFFLINE", None)
    words = f"{sys.executable} -m search.cli {command}"
    with subprocess.Popen(
        words, shell=True, cwd=folder, env=environment, text=True, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            return subprocess.CompletedProcess(words, 124, out, errors)
    return subprocess.CompletedProcess(words, process.returncode, out, errors)


def files(folder: Path) -> set[str]:
    """All files and folders below, but bytecode."""
    found = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def page(tables: Sequence[tuple[str, Sequence[tuple[Bad, Answer]]]]) -> str:
    """The page in Markdown."""
    rows = [row for _, rows in tables for row in rows]
    good = sum(not answer.wrong(bad) for bad, answer in rows)
    times = [answer.seconds for _, answer in rows]
    lines = [
        "# Bad inputs", "",
        "`python benchmarks/inputs.py` makes this page: each command runs in an empty folder, as typed.",
        "Wanted: exit code 2, one line that names the key, what came and the way out, nothing left, at most 2 s "
        "(a file of rows: 3 s).", "",
        f"{good} of {len(rows)} answers are as wanted; median {median(times):.1f} s, "
        f"longest {max(times):.1f} s ({cpu()}).", "",
    ]  # fmt: skip
    for title, found in tables:
        lines += [f"## {title}: {sum(not answer.wrong(bad) for bad, answer in found)} of {len(found)}", ""]
        lines += ["| input | `paretune …` | answer | seconds | |", "|---|---|---|--:|---|"]
        lines += [row(bad, answer) for bad, answer in found]
        lines.append("")
    return "\n".join(lines)


def row(bad: Bad, answer: Answer) -> str:
    """One input."""
    command = bad.command.replace("{models}", "models").replace("{{", "{").replace("}}", "}")
    command = re.sub(r"a{20,}", "aaa…", command)
    said = re.sub(r"a{20,}", "aaa…", answer.said.strip()).replace("\n", " ⏎ ")
    cells = (bad.what, f"`{command}`", said, f"{answer.seconds:.1f}", answer.wrong(bad) or "as wanted")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def cpu() -> str:
    """The name of this machine's."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    sys.exit(main())
