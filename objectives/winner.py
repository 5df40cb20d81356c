"""A candidate as a folder that can be served, whatever runs it: a torch checkpoint, or an engine's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers

from objectives import checkpoint
from objectives.content import sha256
from objectives.errors import ModelError
from objectives.models import LoadedModel
from objectives.runtime.folder import read_facts, runtime_of
from objectives.runtime.runner import EngineRunner
from objectives.types import Runner

FORMAT = 6
ENGINE = "engine"
"""Where an engine's files are: some have a config.json of their own."""


def save(runner: Runner, source: LoadedModel, folder: Path, facts: Mapping[str, Any]) -> int:
    """Write ``runner`` into the new ``folder``, with config and tokenizer of ``source``; returns the bytes of its
    weights.

    ``facts``: anything to keep in the manifest, such as the recipe and what was measured.
    """
    if isinstance(runner, LoadedModel):
        return checkpoint.save(runner, folder, facts)
    assert isinstance(runner, EngineRunner)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / "part"
        shutil.copytree(runner.folder, part / ENGINE, ignore=shutil.ignore_patterns(".*"))
        source.module.config.save_pretrained(part)
        source.tokenizer.save_pretrained(part)
        files = sorted(path for path in part.rglob("*") if path.is_file())
        for file in files:  # engines write theirs for their user alone
            file.chmod((part / "config.json").stat().st_mode)
        (part / ENGINE).chmod(part.stat().st_mode)  # as the folder around it
        names = [path.relative_to(part).as_posix() for path in files]
        runtime = runtime_of(runner.facts)
        manifest = {
            "format": FORMAT,
            "versions": {name: version(name) for name in ("paretune", "transformers")} | runtime.packages.versions(),
            "head": runner.head,
            "notes": list(runner.notes),
            "sha256": {name: sha256(part / name) for name in names},
            **facts,
        }
        (part / checkpoint.MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        part.rename(folder)
    return runner.stored_bytes


def load(folder: Path) -> LoadedModel | EngineRunner:
    """What :func:`save` wrote, ready to run on the CPU. Raises ObjectiveError naming file and expectation."""
    engine = folder / ENGINE
    if not engine.is_dir():
        return checkpoint.load(folder)
    _check(folder)
    missing = runtime_of(read_facts(engine)).packages.missing(running=True)
    if missing is not None:
        raise ModelError(f"{folder}: {missing}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return EngineRunner.open(engine, tokenizer, torch.get_num_threads())


def _check(folder: Path) -> None:
    """Raises ModelError for a file that is missing or was changed."""
    file = folder / checkpoint.MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        wanted: dict[str, str] = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: no manifest of paretune export: {error}") from error
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{file}: format {FORMAT} expected, got {manifest.get('format')!r}")
    for name, digest in wanted.items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing")
        if (found := sha256(folder / name)) != digest:
            raise ModelError(f"{folder / name}: changed since it was written: sha256 {digest} expected, got {found}")
