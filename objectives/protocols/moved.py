"""Keeps old import paths alive: what a class of a user's imported before the packages were sorted (2026-11-28).

A study is held to the code that it was begun with, so the owner of such a class cannot edit its imports: the study
would be refused. One table says where everything went, and a finder of modules answers by it. It makes a module that no
longer exists out of the one in its place, and lets one that lost names say where they are. Nothing here is imported
until it is asked for, so ``import objectives`` stays light.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

MODULES: Mapping[str, str] = {
    "objectives.allocation": "objectives.knapsack",
    "objectives.anatomy": "objectives.models.anatomy",
    "objectives.blocks": "objectives.models.blocks",
    "objectives.canonical": "objectives.models.canonical",
    "objectives.checkpoint": "objectives.export.checkpoint",
    "objectives.checkup": "objectives.evaluation.checkup",
    "objectives.coherence": "objectives.calibration.token_coherence",
    "objectives.content": "objectives.content_hash",
    "objectives.divergence": "objectives.calibration.divergence",
    "objectives.evaluator": "objectives.evaluation.evaluator",
    "objectives.experts": "objectives.models.experts",
    "objectives.export_check": "objectives.export.export_check",
    "objectives.families": "objectives.models.families",
    "objectives.finite": "objectives.tasks.finite",
    "objectives.gradients": "objectives.calibration.gradients",
    "objectives.hybrids": "objectives.models.hybrids",
    "objectives.inspection": "objectives.models.inspection",
    "objectives.layers": "objectives.models.layers",
    "objectives.measuring.allocations": "objectives.devices.allocations",
    "objectives.measuring.encoding": "objectives.workloads.encoding",
    "objectives.measuring.generation": "objectives.workloads.generation",
    "objectives.measuring.prompts": "objectives.workloads.prompts",
    "objectives.measuring.stopwatch": "objectives.devices.stopwatch",
    "objectives.measuring.translation": "objectives.workloads.translation",
    "objectives.measuring.weighing": "objectives.packing.weighing",
    "objectives.problem": "objectives.evaluation.problem",
    "objectives.process_settings": "objectives.devices.process_settings",
    "objectives.provenance": "objectives.tasks.provenance",
    "objectives.pruning.coherent": "objectives.pruning.joint_costs",
    "objectives.racing": "objectives.evaluation.sequential_test",
    "objectives.rebuilt": "objectives.export.rebuilt",
    "objectives.recipes": "objectives.evaluation.recipe",
    "objectives.runtime.captured": "objectives.runtime.in_torch.captured",
    "objectives.runtime.compiled": "objectives.runtime.in_torch.compiled",
    "objectives.runtime.engine": "objectives.runtime.engines.engine",
    "objectives.runtime.export": "objectives.runtime.engines.graph_export",
    "objectives.runtime.folder": "objectives.runtime.engines.folder",
    "objectives.runtime.greedy": "objectives.runtime.in_torch.greedy",
    "objectives.runtime.guard": "objectives.runtime.engines.guard",
    "objectives.runtime.likeness": "objectives.runtime.engines.likeness",
    "objectives.runtime.litert_graph": "objectives.runtime.engines.litert_graph",
    "objectives.runtime.lookup": "objectives.runtime.in_torch.prompt_lookup",
    "objectives.runtime.masks": "objectives.runtime.engines.masks",
    "objectives.runtime.onnx_graph": "objectives.runtime.engines.onnx_graph",
    "objectives.runtime.openvino_faults": "objectives.runtime.engines.openvino_faults",
    "objectives.runtime.openvino_graph": "objectives.runtime.engines.openvino_graph",
    "objectives.runtime.portable": "objectives.runtime.engine_support",
    "objectives.runtime.probe": "objectives.runtime.engines.probe",
    "objectives.runtime.probe_process": "objectives.runtime.engines.probe_process",
    "objectives.runtime.quiet": "objectives.runtime.engines.silence",
    "objectives.runtime.runner": "objectives.runtime.engines.runner",
    "objectives.runtime.signal_stack": "objectives.runtime.engines.signal_stack",
    "objectives.runtime.weights": "objectives.runtime.engines.weights",
    "objectives.scoring": "objectives.evaluation.scoring",
    "objectives.shelf": "objectives.evaluation.artifact_store",
    "objectives.stock": "objectives.export.stock",
    "objectives.tasks.parts": "objectives.tasks.partial_scores",
    "objectives.undescribed": "objectives.models.undescribed",
    "objectives.verdict": "objectives.evaluation.floor_verdict",
    "objectives.winner": "objectives.export.winner",
    "search.advice": "search.front.advice",
    "search.build": "search.space.instantiate",
    "search.certificate": "search.frontier.certificate",
    "search.comparison": "search.front.comparison",
    "search.confirmation": "search.study.confirmation",
    "search.display": "search.reporting.terminal",
    "search.feasible": "search.front.feasibility",
    "search.floor": "search.front.accuracy_floor",
    "search.formatting": "search.reporting.formatting",
    "search.frontier.evidence": "search.frontier.observations",
    "search.frontier.grid": "search.space.grid",
    "search.gained": "search.front.realised_gain",
    "search.headline": "search.reporting.headline",
    "search.members": "search.space.members",
    "search.naming": "search.records.names",
    "search.overrides": "search.config.overrides",
    "search.page": "search.reporting.html",
    "search.pareto": "search.front.pareto",
    "search.plain_text": "search.terminal.plain_text",
    "search.preflight": "search.study.preflight",
    "search.progress": "search.study.progress",
    "search.quiet_log": "search.terminal.quiet_log",
    "search.report": "search.reporting.files",
    "search.sentences": "search.reporting.sentences",
    "search.settled": "search.study.closed_cells",
    "search.signals": "search.executors.signals",
    "search.stopping": "search.config.limits",
    "search.storage_url": "search.records.storage_url",
    "search.tradeoff": "search.front.tradeoff",
    "search.unsupported": "search.space.supported",
}
"""Modules and packages that are elsewhere, with all that lies below them; a yaml may name them by either path."""

_ROWS: Mapping[str, Mapping[str, str]] = {
    "objectives.types": {
        "objectives.protocols.running": "Device Lap=EndPhase Runner Stopwatch Watch=PhaseObserver Workload",
        "objectives.protocols.candidate": "Candidate Materials=BuildContext Model Pruner Quantizer Recovery Runtime",
        "objectives.protocols.optional": "Bounded Detectable Inspectable Supplied",
        "objectives.protocols.task": "Divisible=PartiallyScorable Task",
        "objectives.pruning.criterion": "Criterion",
        "objectives.quantization.rounding": "Rounding",
        "objectives.models.inspection.spans": "Side Span",
        "objectives.evaluation.problem": "CheckReport",
    },
    "objectives.tasks.corpora": {"objectives.protocols.corpus": "Corpus Document"},
    "objectives.calibration": {
        "objectives.calibration.moments": "Domains Moment MomentSum Moments collect_moments",
        "objectives.calibration.statistics": "Statistics",
    },
    "objectives.quantization.grid": {"objectives.packing.codes": "Codes"},
    "objectives.quantization.layers": {"objectives.quantization.layer_codes": "GROUP_SIZES group_size_for"},
    "objectives.models": {
        "objectives.models.padded": "Padded",
        "objectives.models.checkpoint_source": "pad_",
        "objectives.models.loaded_model": "without_pooler",
    },
    "objectives.layers": {"objectives.calibration.statistics": "moment_of"},
    "objectives.families": {"objectives.settings": "asks_to_prune"},
    "objectives.checkpoint": {"objectives.packing.weighing": "disk_bytes"},
    "objectives.evaluator": {"objectives.evaluation.failures": "is_out_of_memory"},
    "objectives.provenance": {"objectives.tasks.reads": "Reads"},
    "objectives.stock": {"objectives.runtime.formats.plain_config": "TRIES"},
    "objectives.devices.cuda": {"objectives.devices.cuda_watches": "AllocatorPeaks EventStopwatch"},
    "objectives.measuring.energy": {"objectives.devices.counters": "Nvml Rapl"},
    "objectives.measuring.roofline": {"objectives.devices.peaks": "Effort Shape probe"},
    "objectives.runtime.in_torch": {"objectives.runtime.in_torch.base": "InTorch"},
    "search.formatting": {"search.reporting.tables": "Column columns confirmation failures ledger rows_of"},
    "search.executors.in_process": {"search.executors.in_process": "InProcessRunner=InProcessSession"},
    "search.executors.protocol": {"search.executors.protocol": "Runner=Session"},
    "search.executors.worker": {"search.executors.worker": "WorkerRunner=WorkerSession"},
    "search.members": {"search.config.study_config": "PROTOCOLS"},
    "search.records": {"search.records.trial": "State TrialRecord Value"},
    "search.space": {"search.space.space": "Axis CHOSEN Cell PARTS Space build_space same"},
    "search.front": {
        "search.front.front": "ParetoFront Step baseline_of by_floor cut minimised",
        "search.front.table": "BATCH BITS RATIO frame searched_columns",
    },
    "search.config": {
        "search.config.definition": "DEFINITION",
        "search.config.study_config": "StudyConfig build_config",
        "search.config.scalars": "Scalars Text metric_name",
    },
}
"""The places of names that moved, by the module where they were. ``Lap=EndPhase``: a name that also changed."""

NAMES: Mapping[str, Mapping[str, str]] = {
    old: {
        name.partition("=")[0]: f"{new}.{name.rpartition('=')[2]}" for new, row in rows.items() for name in row.split()
    }
    for old, rows in _ROWS.items()
}
"""The same, as the dotted place of every name that moved by itself."""


def replacement(module: str) -> str | None:
    """Return the module in the place of one that is gone; None where :data:`MODULES` names neither it nor a parent."""
    parent, below = module, ""
    while parent:
        if parent in MODULES:
            return MODULES[parent] + below
        parent, _, last = parent.rpartition(".")
        below = f".{last}{below}"
    return None


def _moved(module: str, name: str) -> Any:
    """Return what ``name`` of ``module`` is today. Raises AttributeError, as a module without such a name does."""
    place = NAMES.get(module, {}).get(name)
    if place is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules.get(module))
    owner, _, now = place.rpartition(".")
    return getattr(import_module(owner), now)


def _answer(module: ModuleType) -> None:
    """Let ``module`` answer for the names that it lost."""
    answer: Callable[[str], Any] = partial(_moved, module.__name__)
    module.__dict__["__getattr__"] = answer


class _Answering(SourceFileLoader):
    """Loads a module of ours that lost names."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then let it answer for what it lost."""
        super().exec_module(module)
        _answer(module)


class _Replaced(Loader):
    """Makes a module that is gone out of the one in its place; ``now`` is None where only single names are known."""

    def __init__(self, now: str | None) -> None:
        self.now = now

    def exec_module(self, module: ModuleType) -> None:
        """Give it all that the other has, and let it answer for the rest."""
        if self.now is not None:
            held = vars(import_module(self.now))
            module.__dict__.update({name: value for name, value in held.items() if not name.startswith("__")})
        _answer(module)


class _Moved(MetaPathFinder):
    """Finds what the table knows, before Python looks; of everything else it knows nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load ``fullname``; None where it is where it was, with all its names."""
        now = replacement(fullname)
        if now is None and fullname not in NAMES:
            return None
        found = PathFinder.find_spec(fullname, path) if now is None else None
        if found is not None and found.origin is not None:
            if isinstance(found.loader, SourceFileLoader):
                found.loader = _Answering(found.loader.name, found.loader.path)
            return found
        there = find_spec(now) if now is not None else None
        if there is None and fullname not in NAMES:
            return None
        return spec_from_loader(
            fullname, _Replaced(now), is_package=there is not None and there.submodule_search_locations is not None
        )


_FINDER = _Moved()


def keep_old_imports() -> None:
    """Let Python find what moved, from now on in this process."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
