"""``paretune report [study=NAME] [accuracy_floor.epsilon=0.97] [objectives=[latency.p95,peak_memory]] [folder=...]``.

Writes the report of a stored study again, by default of the latest study; measures nothing. With another accuracy
floor, other objectives or another trade-off it computes the Pareto front anew and writes to ``reports/<study>-recut``:
the study's own report stays as it is. Ends with exit code 3 where no trial reaches the floor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search.commands.stored_study import StoredStudy, certificate_of, load
from search.errors import NothingFeasible
from search.reporting.files import write_report
from search.reporting.finish import report_folder, show, study_info
from search.reporting.study_info import StudyInfo
from search.terminal.quiet_log import quiet_log


def main(arguments: list[str]) -> int:
    """Compute the front of a stored study anew and write its report; measure nothing."""
    study = load(arguments, options=("folder",))
    folder = Path(study.options["folder"]) if "folder" in study.options else folder_of(study)
    info = info_of(study)
    write(study, info, folder)
    show(info, study.records, study.front, folder, "")
    return 0 if study.front.front else NothingFeasible.exit_code


def folder_of(study: StoredStudy) -> Path:
    """Return the folder of a stored study's report; one that is cut again has another."""
    own = report_folder(study.config)
    return own.with_name(f"{own.name}-recut") if study.recut else own


def info_of(study: StoredStudy) -> StudyInfo:
    """Return the facts that the report shows about a stored study."""
    confirmation = replace(study.confirmation, dropped={}) if study.recut else study.confirmation  # of another front
    return study_info(
        study.config, study.records, study.front, study.machine, study.stop_reason, confirmation, certificate_of(study)
    )  # fmt: skip


def write(study: StoredStudy, info: StudyInfo, folder: Path) -> None:
    """Write the files of the report into ``folder``; a log keeps what libraries say meanwhile."""
    with quiet_log(study.config.home / "logs"):
        write_report(folder, info, study.records, study.front)
