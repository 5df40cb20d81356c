"""``paretune export folder=winner [study=NAME] [trial=N] [objective=throughput] [format=engine]``: write a candidate.

Writes the recommended candidate, the front's best in ``objective``, or trial N, as a folder that ``objectives.load``
reads. The candidate is compressed again from its settings, so the study's model and calibration data must still be
there, unchanged. Recovery by training runs for a given time, so it gives slightly different weights than those that
were measured: the accuracy of such a candidate is measured again and stored in the folder.

``format``: ``engine``, the folder that was measured; or a stock format, ``hf``, ``compressed-tensors``, ``gptq`` or
``gguf``, which other engines load by themselves. Those that are installed are asked for their answers then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from objectives.devices import process_settings
from objectives.export import formats
from objectives.export.formats import ENGINE
from objectives.protocols.candidate import Candidate
from objectives.protocols.optional import RoundsItself
from objectives.protocols.serving import Loading
from objectives.runtime.engines.folder import ENGINES
from objectives.settings import class_path
from objectives.tasks.provenance import Source
from search.commands.best import choose
from search.commands.stored_study import StoredStudy, load
from search.errors import ConfigError, NothingFeasible, StudyConflict
from search.records.trial import TrialRecord
from search.space.instantiate import nearest
from search.study import opening
from search.terminal.plain_text import inert
from search.terminal.quiet_log import quiet_log

_OWN = "format=engine keeps those that were measured"

if TYPE_CHECKING:
    from objectives.evaluation.evaluator import Evaluator
    from objectives.export.stock_folder import Written


def main(arguments: list[str]) -> int:
    """Write the candidate that ``arguments`` ask for as a folder that ``objectives.load`` reads."""
    study = load(arguments, options=("folder", "trial", "objective", "format"))
    folder, format = Path(study.options.get("folder", "winner")), known_format(study.options.get("format", ENGINE))
    record = chosen(study, study.options)
    if format != ENGINE:
        written = write_stock(study, record, folder, format)
        weights = f"{written.weight_bytes / 2**20:.1f} MiB of weights"
        print(f"{inert(str(folder))}: trial {record.number}, {weights}, format={format}")
        print(*(inert(line) for line in written.lines), sep="\n")
        return 0
    size = write(study, record, folder)
    modules = modules_of(study, record)
    admitted = f", allow_targets={modules}" if modules else ""
    print(
        f"{inert(str(folder))}: trial {record.number}, {size / 2**20:.1f} MiB of weights; "
        f"load with objectives.load({str(folder)!r}{admitted})"
    )
    return 0


def known_format(name: str) -> str:
    """Return ``name``. Raises ConfigError where no format is called so."""
    known = formats.names()
    if name not in known:
        raise ConfigError(f"format: no format {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return name


def modules_of(study: StoredStudy, record: TrialRecord) -> list[str]:
    """Return the modules that ``objectives.load`` has to admit for this candidate; none for a runtime of ours."""
    module = type(study.config.space.candidate(record.params).runtime).__module__
    return [] if module.startswith(ENGINES) else [module]


def write(study: StoredStudy, record: TrialRecord, folder: Path) -> int:
    """Build the candidate of a trial again and write it into a new folder; return the bytes of its weights.

    A log keeps what libraries say meanwhile. Raises ConfigError, also for a folder that exists or cannot be made.
    """
    _require_place(folder)
    with quiet_log(study.config.home / "logs"):
        return _write(study, record, folder)


def write_stock(study: StoredStudy, record: TrialRecord, folder: Path, format: str) -> Written:
    """Build the candidate of a trial again and write it into a new folder in a stock format, checked by its engines.

    Raises as :func:`write`.
    """
    _require_place(folder)
    with quiet_log(study.config.home / "logs"):
        return _write_stock(study, record, folder, format)


def _write_stock(study: StoredStudy, record: TrialRecord, folder: Path, format: str) -> Written:
    from objectives.errors import ObjectiveError
    from objectives.export import stock_folder
    from objectives.export.export_check import sample
    from objectives.export.stock_check import PROMPTS, TOKENS

    candidate = study.config.space.candidate(record.params)
    own = candidate.runtime.own_rounding if isinstance(candidate.runtime, RoundsItself) else None
    if own is not None:
        raise ConfigError(f"format: {own} rounded inside the engine, so other files would hold other weights: {_OWN}")
    quantizer = candidate.quantization
    if quantizer.scheme == "weight_only" and quantizer.stored & {*formats.load(format).ROUNDS_INPUTS}:
        raise ConfigError(
            f"format: engines round the inputs of {format}'s 8-bit weights as well, this trial was measured without: "
            "measure with quantization.scheme=w8a8"
        )
    try:
        evaluator, facts = _rebuilt(study, record, candidate)
        facts["machine"] = dict(study.machine)
        runner, model = evaluator.runner(candidate), evaluator.pool.model(candidate)
        prompts = sample(evaluator.pool.calibration, PROMPTS, TOKENS)
        return stock_folder.save(runner, model, format, folder, facts, prompts)
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error


def _rebuilt(study: StoredStudy, record: TrialRecord, candidate: Candidate) -> tuple[Evaluator, dict[str, Any]]:
    """Return what builds the candidate again as it was measured, and the facts of the trial."""
    from objectives.evaluation.evaluator import Evaluator

    evaluator = Evaluator(study.config.problem)
    require_measured(study, [*study.config.read, *evaluator.sources()])
    facts = _facts(study, record, candidate)
    if candidate.recovery.trains:  # another minute of training gives other weights: these are what is measured
        score = evaluator.score(candidate)
        facts["metrics"] |= {"accuracy": score.accuracy, "accuracy_stderr": score.stderr, **score.extra}
    return evaluator, facts


def _require_place(folder: Path) -> None:
    """Raise ConfigError for a folder that exists or cannot be made: before the candidate is built, which takes long."""
    try:
        exists = folder.exists()
        folder.parent.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=folder.parent).cleanup()
    except OSError as error:
        raise ConfigError(
            f"folder: cannot write to {folder}: {error.strerror or error}; give another folder=<new folder>"
        ) from error
    if exists:
        raise ConfigError(f"folder: {folder} exists already; give another folder=<new folder>")


def _write(study: StoredStudy, record: TrialRecord, folder: Path) -> int:
    """Build the candidate again and write it; returns the bytes of its weights. Raises ConfigError."""
    candidate = study.config.space.candidate(record.params)

    from objectives.devices.stopwatch import Unwatched
    from objectives.errors import ObjectiveError
    from objectives.export import winner
    from objectives.export.export_check import sample

    try:
        evaluator, facts = _rebuilt(study, record, candidate)
        runner = evaluator.runner(candidate)
        loads = isinstance(candidate.workload, Loading)
        if not loads:
            candidate.workload.run(runner, Unwatched())  # engines with files by size make that of the workload
        calibration = evaluator.pool.calibration
        if candidate.runtime.is_torch:
            facts["prepared"] = winner.in_torch(candidate.runtime, calibration)
        ids = sample(calibration)
        if not (candidate.runtime.is_torch or loads):  # a size that the engine has files for
            rows = candidate.workload.batch_size
            ids = sample(calibration, rows, candidate.workload.tokens_read // rows)
        return winner.save(runner, evaluator.pool.source, folder, facts, ids)
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error


def require_measured(study: StoredStudy, now: Sequence[Source]) -> None:
    """Raise StudyConflict where a candidate that is built again would differ from the measured one."""
    opening.require_unchanged(study.config.name, study.sources, now)
    stored = study.machine.get("model_sha256")
    if not study.sources and stored not in (None, study.config.model.weights_hash()):  # of an earlier version
        raise StudyConflict(f"model.path: the weights differ from those that study {study.config.name} measured")


def _facts(study: StoredStudy, record: TrialRecord, candidate: Candidate) -> dict[str, Any]:
    """Return what the manifest keeps beside the model: where it comes from, how it was made, what was measured."""
    config = study.config
    return {
        "study": config.name,
        "trial": record.number,
        "model": config.resolved["model"],
        "methods": {part: config.resolved[part] for part in ("pruning", "recovery", "quantization")},
        "runtime": candidate.runtime.name,
        **({} if candidate.kv.bits == 16 else {"kv_bits": candidate.kv.bits}),
        "settings": {**config.space.fixed(), **record.params},
        "workload": _workload(candidate),
        "process": process_settings.measured_with(study.machine),
        "metrics": dict(record.metrics),
    }


def _workload(candidate: Candidate) -> dict[str, Any]:
    """Return the workload that was timed, as a node from which it can be built again."""
    return {"_target_": class_path(candidate.workload), **dataclasses.asdict(candidate.workload)}  # type: ignore[call-overload]


def chosen(study: StoredStudy, options: dict[str, str]) -> TrialRecord:
    """Return the trial asked for, by default the recommended one. Raises ConfigError or NothingFeasible."""
    number = options.get("trial")
    if number is None:
        if not study.front.front:
            raise NothingFeasible("nothing feasible to export; name a trial=<number>")
        return choose(study, options)
    measured = [record for record in study.records if str(record.number) == number and record.state == "complete"]
    if not measured:
        raise ConfigError(f"trial: no measured trial {number} in {study.config.name}")
    return measured[0]
