"""Writes a candidate to a folder that can be served, whatever runs it: a torch checkpoint, or an engine's files.

A folder is only left behind if it was loaded again and answered as the candidate did
(:mod:`objectives.export.export_check`). Where transformers can load it by itself with the same answers, the folder is
a checkpoint of transformers; any other folder is refused there (:mod:`objectives.export.stock`).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from objectives.content_hash import sha256
from objectives.devices import process_settings
from objectives.devices.cpu import Cpu
from objectives.errors import ModelError
from objectives.export import checkpoint, export_check, stock
from objectives.export.stock import CONFIG, MANIFEST, OWN_CONFIG
from objectives.models import LoadedModel
from objectives.models.notes import notes_of, stored_notes
from objectives.packing import paths
from objectives.packing.linear import copy_linears_, holds_copies, places
from objectives.protocols.candidate import TorchBuildContext
from objectives.protocols.running import Device, Runner
from objectives.runtime.engines.folder import ENGINES, made, read_facts, runtime_of
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.settings import class_path

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains

log = logging.getLogger(__name__)

FORMATS = (6, 7)
"""Formats of engines' folders; in format 6, config.json is the model's."""
ENGINE = "engine"
"""The subfolder with an engine's files: some engines have a config.json of their own."""


def save(runner: Runner, source: LoadedModel, folder: Path, facts: Mapping[str, Any], ids: Tensor | None = None) -> int:
    """Write ``runner`` into the new ``folder`` and return the bytes of its weights.

    ``source``: gives config and tokenizer. ``facts``: anything to keep in the manifest, such as the recipe and what was
    measured. ``ids`` [rows, tokens]: the tokens that the folder, loaded again, has to answer. Raises ModelError, and
    leaves nothing, where its answers differ.
    """
    ids = _some_ids(source) if ids is None else ids
    facts = {"process": process_settings.here(torch.get_num_threads()), **facts}
    if isinstance(runner, TorchRunner) and runner.kv_bits != 16:
        facts["kv_bits"] = runner.kv_bits
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / "part"
        if isinstance(runner, TorchRunner):
            carried = paths.in_use(places(runner.model.module))
            size = checkpoint.save(runner.model, part, {"paths": carried, **facts})
            stock.publish_(part, runner.model, ids)
            loaded = checkpoint.load(part)
            if holds_copies(runner.model):
                copy_linears_(loaded)
            again: Runner = TorchRunner(loaded, kv_bits=runner.kv_bits)
        else:
            assert isinstance(runner, EngineRunner)
            export_check.answers(runner, ids)  # engines with files by size make that of these before they are copied
            _write_engine(runner, source, part, facts)
            size = runner.stored_bytes
            again = EngineRunner.open(part / ENGINE, source.tokenizer, runner.threads, runner.allowed)
        export_check.check(runner, again, ids, folder)
        del again
        part.rename(folder)
    return size


def _some_ids(source: LoadedModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, source.vocabulary, (export_check.ROWS, export_check.TOKENS), generator=generator)


def _write_engine(runner: EngineRunner, source: LoadedModel, part: Path, facts: Mapping[str, Any]) -> None:
    shutil.copytree(runner.folder, part / ENGINE, ignore=shutil.ignore_patterns(".*"))
    source.module.config.to_json_file(part / OWN_CONFIG)
    stock.close_(part)
    source.tokenizer.save_pretrained(part)
    files = sorted(path for path in part.rglob("*") if path.is_file())
    for file in files:  # engines write theirs for their user alone
        file.chmod((part / CONFIG).stat().st_mode)
    (part / ENGINE).chmod(part.stat().st_mode)  # as the folder around it
    names = [path.relative_to(part).as_posix() for path in files]
    runtime = runtime_of(runner.facts, runner.allowed)
    manifest = {
        "format": FORMATS[-1],
        "versions": {name: version(name) for name in ("paretune", "transformers")} | runtime.packages.versions(),
        "head": runner.head,
        "notes": stored_notes(notes_of(runner.notes)),
        "sha256": {name: sha256(part / name) for name in names},
        **facts,
    }
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def load(folder: Path, allow_targets: Sequence[str] = ()) -> TorchRunner | EngineRunner:
    """Load what :func:`save` wrote, ready to run on the CPU. Raises ObjectiveError naming file and expectation.

    ``allow_targets``: modules beside ours whose runtimes the folder may name.
    """
    engine, allowed = folder / ENGINE, (ENGINES, *(f"{name.rstrip('.')}." for name in allow_targets))
    if not engine.is_dir():
        Cpu().use_paths(_carried(folder))
        return _prepared(checkpoint.load(folder), folder, allowed)
    _check(folder)
    missing = runtime_of(read_facts(engine), allowed).packages.missing(running=True)
    if missing is not None:
        raise ModelError(f"{folder}: {missing}")
    return EngineRunner.open(engine, checkpoint.tokenizer_of(folder), torch.get_num_threads(), allowed)


def _carried(folder: Path) -> Mapping[str, Any] | None:
    """Return which paths of packed linears were in use when ``folder`` was written; None where it does not say."""
    try:
        carried = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["paths"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return carried if isinstance(carried, dict) else None


# ---- runtimes that run the packed model itself, in a way of their own


def in_torch(runtime: Any, calibration: Domains) -> dict[str, Any]:
    """Describe a runtime of torch for the manifest, so that loading prepares the model as it was measured."""
    rows = export_check.sample(calibration)
    return {"class": class_path(runtime), "settings": asdict(runtime), "rows": rows.tolist()}


@dataclass(frozen=True)
class _Loaded(TorchBuildContext):
    """The context that a folder keeps: the model, ``rows`` of the calibration data, and bits of keys and values."""

    loaded: LoadedModel
    rows: Domains
    bits: int

    @property
    @override
    def device(self) -> Device:
        return Cpu()

    @property
    @override
    def calibration(self) -> Domains:
        return self.rows

    @property
    @override
    def kv_bits(self) -> int:
        return self.bits

    @override
    def model(self) -> LoadedModel:
        return self.loaded


def _prepared(model: LoadedModel, folder: Path, allowed: Sequence[str]) -> TorchRunner:
    """Return the runner of ``model``: that of the runtime that the manifest names, else that of eager mode."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    prepared, bits = manifest.get("prepared"), manifest.get("kv_bits", 16)
    if prepared is None:
        return TorchRunner(model, kv_bits=bits)
    try:
        runtime = made(str(prepared["class"]), prepared["settings"], f"{folder / MANIFEST}: prepared.class", allowed)
        rows = {"": [torch.tensor(prepared["rows"])]}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / MANIFEST}: prepared describes no runtime: {error}") from error
    missing = runtime.requirements()
    if missing is not None:
        log.warning("%s: %s; until then it runs in torch's eager mode, slower than it was measured", folder, missing)
        return TorchRunner(model, kv_bits=bits)
    runner: TorchRunner = runtime.prepare(_Loaded(model, rows, bits))
    return runner


def _check(folder: Path) -> None:
    """Raise ModelError for a file that is missing or was changed."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        wanted: dict[str, str] = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: no manifest of paretune export: {error}") from error
    if manifest.get("format") not in FORMATS:
        expected = " or ".join(map(str, FORMATS))
        raise ModelError(f"{file}: format {expected} expected, got {manifest.get('format')!r}")
    for name, digest in wanted.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{file}: sha256 must name files of its own folder, got {name!r}")
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing")
        if (found := sha256(folder / name)) != digest:
            raise ModelError(f"{folder / name}: changed since it was written: sha256 {digest} expected, got {found}")
