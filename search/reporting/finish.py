"""Ends a study: writes its report files and the tracker's summary, prints the table, and gives the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from objectives.models.inspection.folders import ASSET
from objectives.tasks.several import tasks_of
from search.config.study_config import StudyConfig
from search.errors import NothingFeasible, ParetuneError
from search.front.advice import advice
from search.front.asked import FLOOR
from search.front.feasibility import recipe_key
from search.front.front import ParetoFront, baseline_of
from search.front.table import frame, searched_columns
from search.frontier.certificate import Certificate
from search.records.names import bounded
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.reporting import sentences
from search.reporting.files import write_report
from search.reporting.formatting import rate_of
from search.reporting.headline import headline_of, numbers
from search.reporting.study_info import MEAN, AskedFloor, StudyInfo
from search.reporting.tables import confirmation, rows_of
from search.reporting.terminal import front_table
from search.study.confirmation import Confirmation
from search.study.study import StudyResult
from search.terminal.console import console, err
from search.terminal.plain_text import inert, inert_tree
from search.tracking.protocol import StudyEnd


class Unwritten(ParetuneError):
    """The report could not be written; the trials are stored. ``info``: its facts."""

    def __init__(self, name: str, info: StudyInfo, error: OSError) -> None:
        super().__init__(
            f"report: cannot write {error.filename or 'it'}: {error.strerror}; the trials are stored: "
            f"paretune report study={name} writes it again"
        )
        self.info = info


def finish(result: StudyResult) -> int:
    """Report, track and print ``result``, and return the exit code."""
    front = result.front
    try:
        info, line = report_and_track(result)
    except Unwritten as error:
        print_result(console(), error.info, result.records, front)
        raise
    show(info, result.records, front, report_folder(result.config), line)
    if result.interrupted is not None:
        print(f"paretune: {result.interrupted}; the same command resumes", file=err())
        return result.interrupted.exit_code
    return NothingFeasible.exit_code if not front.front else 0


def report_and_track(result: StudyResult) -> tuple[StudyInfo, str]:
    """Write the report of ``result`` and tell the tracker; return the report's facts and what the tracker says."""
    config, front = result.config, result.front
    info = study_info(
        config, result.records, front, result.machine, result.stop_reason, result.confirmation, result.certificate
    )
    try:
        end = written(report_folder(config), info, result.records, front, result.machine)
    except OSError as error:
        raise Unwritten(config.name, info, error) from error
    return info, result.mirror.close(end)


def written(
    folder: Path, info: StudyInfo, records: tuple[TrialRecord, ...], front: ParetoFront, machine: Mapping[str, str]
) -> StudyEnd:
    """Write the report of a study into ``folder``, and return what a tracker gets."""
    files = write_report(folder, info, records, front)
    note = {"mlflow.note.content": (folder / "report.md").read_text(encoding="utf-8")}
    return StudyEnd(
        records, info.stop_reason, summary(info, records, front), {**tags(info, front, machine), **note}, files
    )


def report_folder(config: StudyConfig) -> Path:
    """Return the folder of a study's report."""
    return config.home / "reports" / bounded(config.name)


def study_info(
    config: StudyConfig,
    records: tuple[TrialRecord, ...],
    front: ParetoFront,
    machine: Mapping[str, str],
    stop_reason: StopReason,
    confirmation: Confirmation,
    certificate: Certificate | None,
) -> StudyInfo:
    """Return the facts besides the trials; ``certificate``: at the sampler's own error and resolution, if any."""
    task = ", ".join(filter(None, tasks_of(config.task))) or type(config.task).__name__
    return StudyInfo(
        name=config.name,
        title=f"{config.model.path.removeprefix(ASSET)} · {task}",
        objectives=front.objectives,
        floor=front.floor,
        epsilon=config.floor.epsilon,
        relative=config.floor.relative,
        baseline=next((record.number for record in records if record is baseline_of(records)), None),
        model=config.model.path,
        task=task,
        device=machine.get("device_name", config.device.name),
        stop_reason=stop_reason,
        n_trials=config.limits.n_trials,
        space={axis.path: list(axis.values) for axis in config.space.axes},
        fixed=config.space.fixed(),
        settings={key: value for key, value in config.resolved.items() if key not in {"storage", "hydra"}},
        hardware=machine,
        dropped=confirmation.dropped,
        unconfirmed=confirmation.failed,
        rate=rate_of(config.model.head),
        certificate=certificate,
        advice=advice(records, front, config.floor),
        search_cost=_search_cost(config, records),
        gains=headline_of(records, front, config.space.fixed()),
        floors=_floors(config, records, front),
        limits=config.metric_limits.limits,
    )


def _floors(config: StudyConfig, records: tuple[TrialRecord, ...], front: ParetoFront) -> dict[str, AskedFloor]:
    """Return the floors that are asked of several tasks and of their mean; none for one task."""
    baseline, floor = baseline_of(records), config.floor
    names = [name for name in tasks_of(config.task) if name]
    if baseline is None or not names:
        return {}
    found = {name: AskedFloor(baseline.metrics[f"{FLOOR}{name}"], floor.of(name)) for name in names if floor.of(name)}
    return {**found, **({} if floor.mean is None else {MEAN: AskedFloor(front.floor, floor.mean)})}


def _search_cost(config: StudyConfig, records: tuple[TrialRecord, ...]) -> dict[str, str]:
    """Return, by name, how many cells were timed, how many examples scored, and how much time the cache saved."""
    own = [record for record in records if record.cached_from is None]
    inside = [record for record in own if record.params in config.space]  # the baseline may lie outside
    timed = {tuple(record.params.items()) for record in inside if "timing_seconds" in record.metrics}
    found = {"cells timed": f"{len(timed)} of {len(config.space)}"}
    share = _scored_share(inside, max((record.metrics.get("examples", 0.0) for record in records), default=0.0))
    if share is not None and share < 1:
        found["examples scored"] = f"{share:.0%} a recipe"
    spared = sum(record.metrics.get("saved_seconds", 0.0) for record in own)
    if spared >= 1:
        found["spared by the cache"] = f"{spared / 60:.1f} min" if spared >= 60 else f"{spared:.0f} s"
    return found


def _scored_share(records: Sequence[TrialRecord], whole: float) -> float | None:
    """Return the share of the ``whole`` number of examples that was scored per recipe; None where none was."""
    scored: dict[object, float] = {}
    for record in records:
        if "examples" in record.metrics:
            recipe = recipe_key(record)
            scored[recipe] = max(scored.get(recipe, 0.0), record.metrics["examples"])
    return sum(scored.values()) / len(scored) / whole if scored else None


def summary(info: StudyInfo, records: tuple[TrialRecord, ...], front: ParetoFront) -> dict[str, float]:
    """Return the metrics of the study as a whole, for its run in the tracker."""
    by_number = {record.number: record for record in records}
    found = {
        "n_trials": float(len(records)),
        "n_measured": float(sum(r.state == "complete" and r.cached_from is None for r in records)),
        "n_failed": float(sum(r.state == "failed" for r in records)),
        "n_feasible": float(len(front.feasible)),
        "n_front": float(len(front.front)),
        "n_confirmed": float(sum(r.confirmed for r in records)),
        "hypervolume": front.hypervolume,
        "accuracy_floor": front.floor,
        **{f"accuracy_floor.{name}": each.floor for name, each in info.floors.items()},
    }
    if info.gains is not None:
        found |= numbers(info.gains)
    if front.recommended is not None:
        best = by_number[front.recommended].metrics
        found |= {f"recommended.{name}": best[name] for name in sorted(best)}
    return found


def tags(info: StudyInfo, front: ParetoFront, machine: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of the study as a whole, for its run in the tracker."""
    found = {f"machine.{name}": value for name, value in machine.items()}
    found |= {"stop_reason": str(info.stop_reason), "model": info.model, "task": info.task}
    found["front"] = ",".join(map(str, front.front))
    found["recommended"] = "" if front.recommended is None else str(front.recommended)
    found["speed_gain"] = "" if info.gains is None or info.gains.speed is None else str(info.gains.speed)
    found["dropped"] = ",".join(map(str, info.dropped))
    return found


def show(info: StudyInfo, records: tuple[TrialRecord, ...], front: ParetoFront, folder: Path, line: str) -> None:
    """Print the result in the terminal; ``line``: what the tracker says, empty for nothing."""
    out = console()
    out.print()
    print_result(out, info, records, front)
    out.print(Text(inert(f"report: {folder / 'report.html'}")), soft_wrap=True)
    if line:
        out.print(Text(inert(f"{line}  (paretune ui shows it)")), soft_wrap=True)


def print_result(out: Console, info: StudyInfo, records: tuple[TrialRecord, ...], front: ParetoFront) -> None:
    """Print the front as a table, then how sure it is, then the recommendation with its gains."""
    info, records = inert_tree(info), inert_tree(records)
    if front.front:
        out.print(front_table(records, front, info.fixed, rate=info.rate, title=info.name, width=out.width))
    rows = rows_of(frame(records, front, info.fixed))
    for text in (*confirmation(info, rows), *(f"- trial {number}: {why}" for number, why in info.dropped.items())):
        out.print(Text(text))
    out.print()
    first, *more = sentences.result(info, rows, front, tuple(searched_columns(records).values()))
    out.print(Text(first, style="bold"))
    for text in more:
        out.print(Text(text))
