"""``paretune check experiment=... [settings as for run]``: try in under a minute whether the model works with the task.

Starts the worker process as ``run`` would, loads the model, makes the calibration rows, scores four examples and times
one run of the workload at the baseline's batch size. Prints what it found and stores nothing. If something is wrong,
prints one line that says what, and ends with exit code 2.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from objectives.errors import ObjectiveError, described
from objectives.evaluation.problem import CheckReport, ScoreSample
from search.commands.composition import config_of
from search.config.study_config import StudyConfig
from search.errors import ConfigError
from search.terminal.console import console
from search.terminal.quiet_log import quiet_log


def main(arguments: list[str]) -> int:
    """Compose the configuration as ``run`` would, and check the model and task that it names."""
    look(config_of(arguments), console())
    return 0


def look(config: StudyConfig, console: Console) -> None:
    """Run the check in the study's executor and print what it saw. Raises ConfigError."""
    with TemporaryDirectory(prefix="paretune-") as scratch, quiet_log(Path(scratch)):  # what libraries say is not kept
        report = report_of(config)
    for line in lines(config, report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def report_of(config: StudyConfig) -> CheckReport:
    """Return what the executor found; nothing is read from the cache or written there. Raises ConfigError."""
    problem = replace(config.problem, cache=None)
    try:
        with config.executor.start(problem) as session:
            return session.check().result()
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # the worker timed out, was killed or met a bug
        raise ConfigError(f"check: {described(error)} (executor=in_process debug=true shows where)") from error


def lines(config: StudyConfig, report: CheckReport) -> list[str]:
    """Return the report as lines of text."""
    return [
        f"{config.model.path}: {report.model_type}, {_count(report.parameters)} parameters, "
        f"{report.vocabulary} tokens, {_positions(report)}, {_padding(report)}.",
        _compressed(report),
        *(f"Calibration {name}: {rows} rows, {tokens} tokens." for name, (rows, tokens) in report.calibration.items()),
        *([f"{report.left_out}."] if report.left_out else []),
        *(line for sample in report.scores for line in (_scored(config, sample), *_of_the_corpus(sample))),
        f"One run of {type(config.problem.baseline.workload).__name__} at batch size "
        f"{config.problem.baseline.workload.batch_size}: {report.run_seconds:.3g} s, "
        f"peak {report.peak_memory / 2**20:,.1f} MiB with weights.",
        f"Loading and calibration rows took {report.load_seconds:.1f} s, scoring {report.score_seconds:.1f} s.",
    ]


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


def _positions(report: CheckReport) -> str:
    return "no limit of positions" if report.positions is None else f"{report.positions} positions"


def _padding(report: CheckReport) -> str:
    return "no pad token" if report.padding is None else f"pad token {report.padding!r}"


def _compressed(report: CheckReport) -> str:
    if not report.blocks:
        return f"Not pruned: {report.undescribed}"
    share = report.block_parameters / max(1, report.parameters)
    return (
        f"Pruned and quantised: the linears of {report.blocks} blocks, {share:.0%} of all parameters; "
        "embeddings, head and norms stay in 16 bits."
    )


def _scored(config: StudyConfig, sample: ScoreSample) -> str:
    shown = ", ".join(f"{name} {value:.3f}" for name, value in sample.examples.items())
    more = "".join(f", {name} {value:.4g}" for name, value in sample.extra.items())
    seen = "all examples (this task scores no fewer), the first" if sample.whole else "examples"
    who = _asked(config, sample.task) if sample.task else type(config.task).__name__
    return f"{who} scored {seen} {shown}: accuracy {sample.accuracy:.4f}{more}."


def _asked(config: StudyConfig, task: str) -> str:
    """Return the name of one of several tasks, with the floor that is asked of it."""
    of = " of the baseline's" if config.floor.relative else ""
    floor = config.floor.of(task)
    return f"{task} (floor {floor:g}{of})" if floor else f"{task} (no floor of its own)"


def _of_the_corpus(sample: ScoreSample) -> list[str]:
    """Return how a metric is scored that all examples give together; nothing for the mean of the examples."""
    if sample.replicates is None:
        return []
    metric = "That is a metric of all examples together, not their mean, so it is always scored in full."
    if not sample.replicates:
        return [f"{metric} The score has no replicates (objectives/tasks/resampling.py), so no interval is known."]
    return [f"{metric} Its standard error is {sample.stderr:.4f}, from {sample.replicates} resamples of the examples."]
