"""Do exported folders answer, and run, as they were measured?

``python benchmarks/winners.py [family ...]`` cuts tiny random models of every family in every way (dense, uneven
widths, even widths, depth, both) at every width of the weights, with every switch of their config that changes the
answer; exports them, loads them in both ways and writes ``docs/benchmarks/winners.md``. Half a minute a family, as many
at once as there are cores: 22 minutes on two. With families named, the page is written anew where all were tried here.

``python benchmarks/winners.py --speed FOLDER`` times the workload of an exported winner in a plain process, after
``objectives.load`` and nothing else, and compares the median with the figure of its study; 0 where it is at most 10 %
off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs" / "benchmarks" / "winners.md"
RESULTS = PAGE.with_suffix(".json")
RUNS = 30
ALLOWED = 0.10
"""By how much of the study's figure a plain process may be off."""
_TIMED = """
import json, sys, time
from pkgutil import resolve_name
import objectives
runner = objectives.load(sys.argv[1])
from objectives.devices.stopwatch import WallStopwatch
described = json.loads(sys.argv[2])
workload = resolve_name(described.pop("_target_"))(**described)
seconds = []
for _ in range(int(sys.argv[3])):
    watch = WallStopwatch()
    workload.run(runner, watch)
    seconds += watch.timing(1).latency
print(json.dumps(seconds))
"""
Row = Mapping[str, Any]


def speed(folder: Path, runs: int = RUNS) -> tuple[float, float]:
    """Median seconds of a batch in a plain process, the first three left out, and by the study."""
    manifest = json.loads((folder / "paretune.json").read_text())
    from objectives.devices.process_settings import ENVIRONMENT

    plain = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT and name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", _TIMED, str(folder.absolute()), json.dumps(manifest["workload"]), str(runs + 3)]
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    seconds = sorted(json.loads(done.stdout.splitlines()[-1])[3:])
    return seconds[len(seconds) // 2], manifest["metrics"]["latency.p50"]


def all_rows(family: str) -> list[Row]:
    """Those of one family, on one thread of a process of its own."""
    import torch

    torch.set_num_threads(1)
    rows: list[Row] = []
    try:
        rows += rows_of(family)
    except Exception as error:  # of one family: the others are told all the same
        what = f"FAULT: {type(error).__name__}: {error}"
        rows += [{"family": family, "switch": "", "raising": []}]
        rows += [{"family": family, "switch": "?", "kind": "", "bits": 0, "outcome": what}]
    return rows


def rows_of(family: str) -> Iterator[Row]:
    """A row for every combination of switch, cut and bits."""
    from tests.objectives import winners

    changing, raising = winners.switches(family)
    yield {"family": family, "switch": "", "raising": [_named(one) for one in raising]}
    for changes in [{}, *changing]:
        dense = winners.model_of(family, changes)
        yield {"family": family, "switch": _named(changes), "place": winners.keeps_its_function(dense)}
        for kind in winners.KINDS:
            for bits in winners.BITS:
                with TemporaryDirectory() as scratch:
                    found = winners.outcome(dense, kind, bits, Path(scratch) / "winner")
                print(family, _named(changes) or "-", kind, bits, found, flush=True)
                yield {"family": family, "switch": _named(changes), "kind": kind, "bits": bits, "outcome": found}


def _named(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def page(rows: Sequence[Row]) -> str:
    """The report of all rows."""
    tried = [row for row in rows if "outcome" in row]
    counts = Counter(str(row["outcome"]).partition(":")[0] for row in tried)
    families = sorted({row["family"] for row in rows})
    lines = [
        "# Winners: folders that answer as they were measured",
        "",
        "Made by `python benchmarks/winners.py`: tiny random models of every known family, with every config switch",
        "that changes the answer (found by trying other values of every field of the config classes), cut and rounded",
        "in every way, exported, and opened by `objectives.load` (bit-equal, at once and from a cache) and by two",
        "classes of transformers (equal up to the rounding of sums, or refused with the way out).",
        "",
        f"**{len(tried)} combinations** of {len(families)} families: {counts['plain']} are plain checkpoints, "
        f"{counts['closed']} are closed to other loaders, {counts['refused']} are refused with a reason, "
        f"{counts['FAULT']} are faults.",
        "",
        "| family | switches | combinations | plain | closed | refused | faults | kept blocks do what they did |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in families:
        own = [row for row in tried if row["family"] == family]
        kinds = Counter(str(row["outcome"]).partition(":")[0] for row in own)
        switched = {row["switch"] for row in own} - {""}
        places = Counter(row["place"] for row in rows if row["family"] == family and "place" in row)
        lines.append(
            f"| {family} | {len(switched)} | {len(own)} | {kinds['plain']} | {kinds['closed']} | {kinds['refused']} | "
            f"{kinds['FAULT']} | {', '.join(f'{place}: {count}' for place, count in places.items())} |"
        )
    refusals = Counter(
        (row["family"], row["switch"], str(row["outcome"]))
        for row in tried
        if row["outcome"] not in {"plain", "closed"}
    )
    lines += ["", "## Refusals and faults", "", "| family | switch | combinations | what |", "|---|---|---|---|"]
    lines += [
        f"| {family} | {switch or '-'} | {count} | {what.replace('|', '/')} |"
        for (family, switch, what), count in sorted(refusals.items())
    ]
    lines += ["", "## Switches", ""]
    for family in families:
        names = sorted({row["switch"] for row in tried if row["family"] == family} - {""})
        raising = next(row["raising"] for row in rows if row["family"] == family and "raising" in row)
        lines += [f"- **{family}**: {'; '.join(names)}. No such model: {'; '.join(raising) or 'none'}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """0 where everything holds."""
    if arguments[:1] == ["--speed"]:
        found, wanted = speed(Path(arguments[1]))
        print(f"{found:.4f} s in a plain process, {wanted:.4f} s by the study: ratio {found / wanted:.3f}")
        return 0 if abs(found / wanted - 1) <= ALLOWED else 1
    from objectives.models.families import FAMILIES

    there = RESULTS.is_file()  # not in the repository: it has a line for every combination
    kept: list[Row] = json.loads(RESULTS.read_text(encoding="utf-8")) if there and arguments else []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(all_rows, family): family for family in arguments or sorted(FAMILIES)}
        for done in as_completed(running):
            kept = [row for row in kept if row["family"] != running[done]] + done.result()
            if there or not arguments:  # a page of some families alone would lose the others
                RESULTS.write_text(json.dumps(kept), encoding="utf-8")
                PAGE.write_text(page(kept), encoding="utf-8")
    return int(any(str(row.get("outcome", "")).startswith("FAULT") for row in kept))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
