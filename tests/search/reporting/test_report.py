from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import noted
from objectives.measuring.stored_facts import facts_of
from objectives.types import Note, NoteCode
from search.front.front import ParetoFront, cut
from search.front.pareto import non_dominated
from search.front.tradeoff import WeightedLogRatio
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord, Value
from search.reporting.files import write_report
from search.reporting.formatting import number, percent, rate_of, ratio, show
from search.reporting.headline import headline_of
from search.reporting.study_info import StudyInfo
from search.reporting.terminal import front_table
from search.terminal.plain_text import inert

HOSTILE = "</script><img src=x onerror=alert(1)>|[b]{{7*7}}$x$\u2028&"
FILES = ["pareto.csv", "trials.csv", "pareto.json", "report.md", "report.html", "front.png", "price.csv"]


def records_of() -> list[TrialRecord]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(24):
        params: dict[str, Value] = {"pruning.ratio": i % 4 / 10, "quantization.bits": (16, 8, 4)[i % 3]}
        params |= {"workload.batch_size": 1 + i, "runtime.name": HOSTILE}
        metrics = {
            "throughput": float(100 * rng.lognormal()), "peak_memory": float(3e8 * rng.lognormal()),
            "accuracy": 0.5 + 0.1 * float(rng.random()), "perplexity": 20.0,
            "latency.p50": 0.012, "latency.p95": float(rng.random()),
        }  # fmt: skip
        made.append(
            TrialRecord(
                i, f"u{i}", params, "complete", metrics, notes=(Note(NoteCode.OTHER, HOSTILE),), is_baseline=i == 0
            )
        )
    made.append(TrialRecord(24, "f", made[1].params, "failed", reason="timeout", message="=cmd|' /C calc'!A0"))
    made.append(replace(made[3], number=25, uid="r", cached_from=3, notes=()))
    return made


def study_of(front: ParetoFront) -> StudyInfo:
    return StudyInfo(
        name=HOSTILE, title=f"T {HOSTILE}", objectives=front.objectives, floor=front.floor,
        epsilon=0.99, relative=True, baseline=0, model=HOSTILE, task="toy", device="cpu",
        stop_reason=StopReason.BUDGET, n_trials=26,
        space={"pruning.ratio": [0, 0.1, 0.2, 0.3]}, settings={"a": math.nan, "b": {"c": HOSTILE}},
        hardware={"CPU": HOSTILE}, search_cost={"cells timed": "12 of 18"}, gains=headline_of(records_of(), front),
    )  # fmt: skip


def written(
    folder: Path, floor: float = 0.55, objectives: tuple[str, ...] = ("throughput", "peak_memory")
) -> tuple[list[Path], ParetoFront]:
    front = cut(records_of(), objectives, floor, WeightedLogRatio())
    return write_report(folder, study_of(front), records_of(), front), front


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ParetoFront]:
    folder = tmp_path_factory.mktemp("report")
    return folder, written(folder)[1]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("floor", [0.55, 2.0])
@pytest.mark.parametrize(
    "objectives",
    [("throughput", "peak_memory"), ("throughput", "peak_memory", "latency.p95"), ("peak_memory",)],
)
def test_all_files_are_written_and_nothing_else(tmp_path: Path, floor: float, objectives: tuple[str, ...]) -> None:
    paths, _ = written(tmp_path / "new" / "report", floor, objectives)
    assert [path.name for path in paths] == FILES
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(FILES)
    assert paths[FILES.index("front.png")].read_bytes().startswith(b"\x89PNG")


def test_a_report_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    written(tmp_path)
    before = (tmp_path / "report.html").read_text()
    written(tmp_path, floor=0.58)
    assert (tmp_path / "report.html").read_text() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_a_study_without_a_measured_trial_still_has_a_report(tmp_path: Path) -> None:
    records = [TrialRecord(0, "u", {}, "failed", reason="crashed", is_baseline=True)]
    front = cut(records, ("throughput", "peak_memory"), 0.5, WeightedLogRatio())
    write_report(tmp_path, study_of(front), records, front)
    assert "Nothing could be measured in full: crashed 1×" in (tmp_path / "report.html").read_text()


def test_the_csv_alone_gives_the_same_front_and_holds_the_floor(report: tuple[Path, ParetoFront]) -> None:
    folder, front = report
    table = pd.read_csv(folder / "trials.csv")
    own = table[(table.state == "complete") & (table.accuracy >= front.floor) & table.cached_from.isna()]
    mask = non_dominated(np.column_stack((-own.throughput, own.peak_memory)))
    assert set(own.trial[mask]) == set(front.front) == set(table.trial[table.on_front])
    members = pd.read_csv(folder / "pareto.csv")
    assert tuple(members.trial) == front.front
    assert (members.accuracy >= front.floor).all()
    assert list(members.columns) == list(table.columns)


def test_no_csv_cell_is_a_formula(report: tuple[Path, ParetoFront]) -> None:
    folder, _ = report
    table = pd.read_csv(folder / "trials.csv")
    assert table.message[24].startswith("'=cmd")
    assert table.throughput.dtype == float


def test_json_is_strict_and_complete(report: tuple[Path, ParetoFront]) -> None:
    folder, front = report

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads((folder / "pareto.json").read_text(), parse_constant=refuse)
    assert [point["trial"] for point in found["front"]] == list(front.front)
    assert found["recommended"] == front.recommended
    assert found["study"]["settings"]["a"] is None
    assert found["front"][0]["params"]["runtime.name"] == HOSTILE


def test_the_page_asks_the_network_for_nothing(report: tuple[Path, ParetoFront]) -> None:
    folder, _ = report
    page = (folder / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"'\s]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page
    parser = Tags()
    parser.feed(page)
    assert not [tag for tag, attributes in parser.found if {"src", "href", "srcset", "action"} & set(attributes)]


def test_hostile_names_stay_text(report: tuple[Path, ParetoFront]) -> None:
    folder, _ = report
    page = (folder / "report.html").read_text()
    parser = Tags()
    parser.feed(page)
    tags = [tag for tag, _ in parser.found]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert page.count("</script>") == 2
    assert not [a for _, attributes in parser.found for a in attributes if a.startswith("on")]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert not set("<>&\u2028") & set(data[1])
    assert inert(HOSTILE) in json.loads(data[1])["trials"][0]["label"]


def test_the_headline_says_what_to_take(report: tuple[Path, ParetoFront]) -> None:
    folder, front = report
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert re.search(rf"Recommended: trial {front.recommended}, .* pruned, \d+ bit, batch \d+", text)
        assert re.search(r"Accuracy: 0\.\d+ ≥ floor 0\.5500", text)


def page_data(folder: Path) -> dict[str, Any]:
    page = (folder / "report.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    found: dict[str, Any] = json.loads(data[1])
    return found


RACED = {"verdict_by": "betting", "verdict": "reached"}


@pytest.mark.parametrize("floor", [0.5, 0.55, 0.58, 2.0])
def test_the_slider_finds_what_the_command_line_finds(tmp_path: Path, floor: float) -> None:
    """At the study's own floor as its races decided it, elsewhere by accuracy; slower members are left as there."""
    records = [record for record in records_of() if record.cached_from is None]
    for place in (4, 7, 11):
        slow = {**records[place].metrics, **noted("compression_speedup", Estimate(0.6, 0.5, 0.7))}
        records[place] = replace(records[place], metrics={**slow, "peak_memory": 1e7 * place})
    metrics = {**records[5].metrics, "accuracy": floor - 0.01, "floor": floor, "peak_memory": 1e6}
    records[5] = replace(records[5], metrics=metrics, facts=facts_of(RACED))  # kept by its race, below by its estimate
    tradeoff = WeightedLogRatio()
    front = cut(records, ("throughput", "peak_memory"), floor, tradeoff)
    write_report(tmp_path, study_of(front), records, front)
    data = page_data(tmp_path)
    assert (tuple(data["own"]["front"]), data["own"]["best"]) == (front.front, front.recommended)
    assert (set(data["own"]["feasible"]), data["floor"]) == (set(front.feasible), floor)
    assert 5 in data["own"]["feasible"]
    assert {each["trial"] for each in data["trials"] if each["slower"]} == {4, 7, 11}
    plain = [replace(record, facts=facts_of({})) for record in records]
    for other in sorted({record.metrics.get("accuracy", 0.7) for record in records} - {floor}):
        expected = cut(plain, ("throughput", "peak_memory"), other, tradeoff)
        step = next((step for step in data["steps"] if other <= step["floor"]), {"front": [], "best": None})
        assert (tuple(step["front"]), step["best"]) == (expected.front, expected.recommended)


def test_when_nothing_is_feasible_the_report_says_how_far_off_it_is(tmp_path: Path) -> None:
    _, front = written(tmp_path, floor=2.0)
    assert front.gap is not None
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Nothing reaches the accuracy floor of 2.0000" in text
        assert f"{front.gap:.4f} below" in text


def test_markdown_tables_keep_their_columns(report: tuple[Path, ParetoFront]) -> None:
    folder, _ = report
    lines = (folder / "report.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")][:5]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_the_terminal_table_shows_markup_as_text() -> None:
    records = records_of()
    front = cut(records, ("throughput", "peak_memory"), 0.55, WeightedLogRatio())
    output = StringIO()
    Console(file=output, width=400).print(front_table(records, front, title="[b]t[/b]"))
    text = output.getvalue()
    assert "[b]t[/b]" in text
    assert "[b]{{7*7}}" in text
    assert "★" in text
    assert "1 failed (timeout 1)" in text


def test_a_terminal_of_80_columns_shows_every_heading_whole() -> None:
    records = records_of()
    front = cut(records, ("throughput", "peak_memory"), 0.55, WeightedLogRatio())
    output = StringIO()
    Console(file=output, width=80).print(front_table(records, front, width=80))
    words = output.getvalue().split()
    assert {"Throughput", "[tokens/s]", "memory", "Accuracy", "Speed"} <= set(words)
    assert max(map(len, output.getvalue().splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("peak_memory", 612 * 2**20, "612 MiB"),
        ("peak_memory", 9.5 * 2**30, "9.50 GiB"),
        ("ttft", 0.0123, "12.3 ms"),
        ("latency.p50", 2.5, "2.50 s"),
        ("throughput", 12345.6, "12,346 tokens/s"),
        ("pruning_ratio", 0.2, "20.0 %"),
        ("accuracy", 0.35214, "0.3521"),
        ("speedup", 2.1, "2.10×"),
    ],
)
def test_numbers_read_well(name: str, value: float, text: str) -> None:
    assert show(name, value, "tokens/s") == text


def test_small_and_odd_numbers_read_too() -> None:
    assert [number(x) for x in (0, 0.000012, -1.5, 999.9, math.inf)] == [
        "0",
        "1.20e-05",
        "-1.50",
        "1,000",
        "inf",
    ]


@pytest.mark.parametrize(
    ("head", "unit"), [("causal_lm", "tokens/s"), ("seq2seq", "tokens/s"), ("encoder", "samples/s")]
)
def test_what_writes_yields_tokens_and_what_reads_samples(head: Any, unit: str) -> None:
    assert rate_of(head) == unit


def test_nothing_is_rounded_to_nothing_or_to_all() -> None:
    assert [ratio(x) for x in (0.0, 0.00421, 0.0995, 0.67, 1.0, 2.1, 9.994, 12.34, 1234.5)] == [
        "0.00×", "0.00421×", "0.10×", "0.67×", "1.00×", "2.10×", "9.99×", "12.3×", "1,234.5×",
    ]  # fmt: skip
    assert [percent(x) for x in (0.0, 0.2, 1 / 3, 0.9995, 0.00012, 1.2)] == [
        "0 %", "20 %", "33.33 %", "99.95 %", "0.012 %", "120 %",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")
@pytest.mark.parametrize("floor", [0.55, 2.0])
def test_the_pages_script_looks_up_those_cuts(tmp_path: Path, floor: float) -> None:
    _, front = written(tmp_path, floor)
    data = page_data(tmp_path)
    source = (files("search.reporting") / "templates" / "report.js").read_text()
    cut_of = source[source.index("  const byNumber") : source.index("  function node(")]
    floors = [floor, 0.0, *(step["floor"] for step in data["steps"]), 0.7]
    program = f"""
        const data = {json.dumps(data)}, trials = data.trials;
        {cut_of}
        console.log(JSON.stringify({json.dumps(floors)}.map((f) => {{
          const r = cut(f); return [r.count, r.front.map((t) => t.trial), r.best ? r.best.trial : null];
        }})));
    """
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=60, check=True)
    for at, (count, members, best) in zip(floors, json.loads(done.stdout), strict=True):
        expected = cut(records_of(), front.objectives, at, WeightedLogRatio())
        assert (count, tuple(members), best) == (len(expected.feasible), expected.front, expected.recommended)
