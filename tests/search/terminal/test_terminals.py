"""The same result in every terminal: another encoding, no width, no room, no reader, or no terminal at all."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from objectives.measuring.stored_facts import facts_of
from search.reporting.finish import finish
from search.study.study import run_study
from search.terminal.console import REPLACED, tolerant
from search.terminal.plain_text import inert, inert_json, inert_tree, one_line
from tests.search.conftest import Quiet, composed
from tests.search.reporting.test_report import study_of

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "search.cli"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, whose recommended row has a star and whose ratios have crosses."""
    from search.config.study_config import build_config
    from tests.search.conftest import FakeExecutor

    folder = tmp_path_factory.mktemp("studied")
    words = ("experiment=ci_tiny", "tracker=none", "device=cpu", f"home={folder}/mlruns", "n_trials=3")
    finish(run_study(replace(build_config(composed(*words)), executor=FakeExecutor()), Quiet()))
    return folder


def environment(**given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("LC_ALL", "LANG", "PYTHONIOENCODING")}
    return {**kept, "PYTHONPATH": str(ROOT), **given}


def shell(line: str, folder: Path, **given: str) -> subprocess.CompletedProcess[bytes]:
    """``line`` in sh, in which ``paretune`` stands for the command."""
    line = line.replace("paretune", " ".join(COMMAND))
    return subprocess.run(["sh", "-c", line], cwd=folder, env=environment(**given), capture_output=True, timeout=280)


@pytest.mark.parametrize(
    ("given", "encoding"),
    [
        pytest.param({"PYTHONIOENCODING": "latin-1"}, "latin-1", marks=pytest.mark.slow),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "1"}, "ascii"),
    ],
)
def test_a_report_is_shown_in_any_encoding(given: dict[str, str], encoding: str, studied: Path) -> None:
    done = shell("paretune report", studied, **given)
    text = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert "Recommended" in text
    assert "*" in text
    assert ">=" in text
    html = next(studied.glob("mlruns/reports/*/report.html")).read_text(encoding="utf-8")
    assert "×" in html


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", "shift_jis"])
def test_every_sign_of_ours_reaches_every_encoding(encoding: str) -> None:
    text = "★ × ≥ ± · – → µs … größe 中文 🙂 \ud800"
    shown = text.encode(encoding, errors=REPLACED).decode(encoding)
    assert shown.isprintable()
    if encoding == "ascii":
        assert shown == "* x >= +- - - -> us ... gr??e ?? ? ?"
    if encoding == "utf-8":
        assert shown == text.replace("\ud800", "?")


@pytest.mark.parametrize(
    "redirection",
    [
        ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| true",
        "2>&1 | true", "</dev/null",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("command", "code"), [("help", 0), ("nope", 2)])
def test_a_stream_that_takes_nothing_changes_no_exit_code(
    command: str, code: int, redirection: str, tmp_path: Path
) -> None:
    done = shell(f"(paretune {command}; echo $? >code) {redirection}", tmp_path)
    assert (tmp_path / "code").read_text().strip() == str(code)
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"Error" not in done.stderr


@pytest.mark.parametrize("lost", ["closed", "full"])
def test_a_lost_stream_leaves_alone_whatever_gets_its_number(tmp_path: Path, lost: str) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = tolerant(descriptor)
    with open(tmp_path / "other", "wb") as file:
        if lost == "closed":
            os.close(descriptor)
        stream.write("nobody reads this\n")
        os.dup2(file.fileno(), descriptor)
    stream.write("nor this\n")
    os.write(descriptor, b"mine")
    os.close(descriptor)
    assert (tmp_path / "other").read_bytes() == b"mine"


def test_a_lost_stream_keeps_its_descriptor() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    tolerant(descriptor).write("nobody reads this\n")
    assert os.path.samestat(os.fstat(descriptor), os.stat("/dev/full"))
    os.close(descriptor)


@pytest.mark.parametrize(
    "redirection",
    [
        ">/dev/full 2>&-",
        *(pytest.param(each, marks=pytest.mark.slow) for each in (">&- 2>&-", ">/dev/full 2>/dev/full")),
    ],
)
def test_a_report_is_written_wherever_it_is_shown(redirection: str, studied: Path, tmp_path: Path) -> None:
    shell(f"(paretune report folder={tmp_path}/out; echo $? >{tmp_path}/code) {redirection}", studied)
    assert (tmp_path / "code").read_text().strip() == "0"
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(("columns", "kind"), [(1, "xterm"), pytest.param(20, "dumb", marks=pytest.mark.slow)])
def test_a_narrow_or_dumb_terminal_shows_the_result(columns: int, kind: str, studied: Path) -> None:
    code, text = in_terminal([*COMMAND, "report"], studied, columns, TERM=kind)
    assert code == 0, text
    assert "Traceback" not in text
    assert "Recommended" in text


def in_terminal(command: list[str], folder: Path, columns: int, **given: str) -> tuple[int, str]:
    """Exit code and output of ``command`` in a terminal of so many columns."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env=environment(**given), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        parts.append(data)
    os.close(ours)
    return process.wait(timeout=60), b"".join(parts).decode(errors="replace")


# ---- texts that steer

STEERING = "\x1b[31m\x07\r\x08\x7f\x9b31m\u202egnp\u2066\u200b\ufeff\x00\u2028\ud800"
VISIBLE = r"\x1b[31m\x07\x0d\x08\x7f\x9b31m\u202egnp\u2066\u200b\ufeff\x00\u2028\ud800"


def steers(text: str) -> bool:
    return any(character in text for character in set(STEERING) - set("[31mgnp\r"))


def test_what_steers_is_shown_as_its_escape_and_the_rest_stays() -> None:
    assert inert(STEERING) == VISIBLE
    assert inert("größe 中文 🙂\ta\nb ×") == "größe 中文 🙂\ta\nb ×"
    assert one_line("a\n  b\x1b") == r"a b\x1b"
    assert json.loads(inert_json(json.dumps({"a": STEERING[:-1]}, ensure_ascii=False))) == {"a": STEERING[:-1]}
    assert inert_tree({"a\x1b": ["\x07", ("\u202e", 1.5, None)]}) == {r"a\x1b": [r"\x07", (r"\u202e", 1.5, None)]}


def test_no_output_of_a_report_steers(tmp_path: Path) -> None:
    from search.front.front import cut
    from search.front.tradeoff import WeightedLogRatio
    from search.reporting.files import write_report
    from tests.search.reporting.test_report import records_of

    records = [
        replace(
            record, notes=(STEERING,), message=STEERING, params={**record.params, f"k{STEERING}": STEERING},
            facts=facts_of({"no_realised_gain": STEERING}),
        )
        for record in records_of()
    ]  # fmt: skip
    front = cut(records, ("throughput", "peak_memory"), 0.55, WeightedLogRatio())
    study = replace(
        study_of(front), name=STEERING, title=STEERING, model=STEERING, task=STEERING, device=STEERING,
        unconfirmed=STEERING, advice=(STEERING,), dropped={1: STEERING}, settings={STEERING: STEERING},
        hardware={STEERING: STEERING},
    )  # fmt: skip
    for path in write_report(tmp_path, study, records, front):
        if path.suffix != ".png":
            text = path.read_bytes().decode()
            assert not steers(text), path
            assert "\r" not in text
    assert VISIBLE.split("[")[0] in (tmp_path / "trials.csv").read_text(encoding="utf-8")


# ---- files


def calls_without_encoding(source: str) -> list[int]:
    """Lines on which a text file is opened, or a program's text is read, in the locale's encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = {keyword.arg for keyword in node.keywords if not _is(keyword.value, False)}
            text = any(keyword.arg == "text" and _is(keyword.value, True) for keyword in node.keywords)
            modes = [
                value for value in ast.walk(node) if isinstance(value, ast.Constant) and value.value in ("rb", "wb")
            ]
            reads = name in ("read_text", "write_text") or (name == "open" and isinstance(node.func, ast.Name))
            if ((reads and not modes) or text) and "encoding" not in words:
                found.append(node.lineno)
    return found


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_the_test_below_sees_what_it_looks_for() -> None:
    text = 'a.read_text()\nopen(p)\nrun(c, text=True)\nopen(p, "rb")\na.write_text(s, encoding="utf-8")\nb.open(x)'
    assert calls_without_encoding(text) == [1, 2, 3]


@pytest.mark.parametrize("package", ["search", "objectives", "paretune"])
def test_files_are_utf_8_whatever_the_locale(package: str) -> None:
    sources = (ROOT / package).rglob("*.py")
    wrong = {
        str(path): lines for path in sources if (lines := calls_without_encoding(path.read_text(encoding="utf-8")))
    }
    assert not wrong
