"""``paretune report study=NAME [accuracy_floor.epsilon=0.97] [objectives=[latency.p95,peak_memory]] [folder=...]``."""

from __future__ import annotations

from pathlib import Path

from search.commands.stored import load
from search.errors import NothingFeasible
from search.finish import report_folder, show, study_info
from search.report import write_report


def main(arguments: list[str]) -> int:
    """Cut the front of a stored study anew and write its report; measures nothing."""
    study = load(arguments, options=("folder",))
    folder = Path(study.options.get("folder", report_folder(study.config)))
    info = study_info(study.config, study.records, study.front, study.machine, "stored")
    write_report(folder, info, study.records, study.front)
    show(info, study.records, study.front, folder, "")
    return 0 if study.front.front else NothingFeasible.exit_code
