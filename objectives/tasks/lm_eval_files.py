"""Reads what the yaml of a task of lm-eval says, before lm-eval is imported and before any code that it names runs.

A task of lm-eval may execute what a model writes, run Python beside its yaml (``!function``), or fetch its documents.
All of that is seen in the yaml and in those that it includes, so it is refused here, in a line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from objectives.errors import DataError, TaskError, described

LOCAL = ("json", "csv", "text", "parquet", "arrow")
"""Kinds of files that ``datasets`` reads as they lie here."""


class _Code(str):
    """The name of a Python function or class that a yaml would import."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads a yaml without importing what it names."""


_Loader.add_constructor("!function", lambda loader, node: _Code(loader.construct_scalar(node)))


@dataclass(frozen=True)
class Description:
    """The content of a task's yaml: its path, its settings with those that it includes, and all files that were read.

    ``is_installed``: all of them belong to lm-eval itself.
    """

    path: Path
    settings: Mapping[str, Any]
    yamls: tuple[Path, ...]
    is_installed: bool

    @property
    def data_files(self) -> tuple[str, ...]:
        """Return the files or folders of documents that it names."""
        named = (self.settings.get("dataset_kwargs") or {}).get("data_files") or ()
        return tuple(_strings(named))


@lru_cache(maxsize=8)
def described_task(name: str, include_path: str | None) -> Description:
    """Find the task ``name`` in the folder ``include_path``, or else among those of lm-eval.

    Raises TaskError where lm-eval is not installed, and DataError where no yaml describes a task of this name.
    """
    installed = tasks_folder()
    folders = [*([Path(include_path).expanduser()] if include_path else []), installed]
    if not folders[0].is_dir():
        raise DataError(f"task.include_path: no such folder: {include_path}")
    known: list[str] = []
    for folder in folders:
        for path in _yamls_with(folder, name, known):
            settings, yamls = _merged(path)
            if settings.get("task") == name:
                ours = all(each.is_relative_to(installed) for each in yamls)
                return Description(path, settings, tuple(yamls), ours)
            if settings.get("group") == name:
                parts = ", ".join(each for each in settings["task"] if isinstance(each, str))
                raise DataError(f"task.name: {name} is a group; name one of its tasks: {parts[:300]}")
    near = difflib.get_close_matches(name, known, n=3)
    hint = (
        f"; did you mean {' or '.join(near)}?" if near else "; task.include_path names a folder with yamls of your own"
    )
    raise DataError(f"task.name: lm-eval has no task {name!r}{hint}")


def require_harmless(found: Description, name: str, run_code: bool, download: bool) -> None:
    """Raise DataError for a task that executes what a model writes, and for code or documents nobody agreed to."""
    settings = found.settings
    if settings.get("unsafe_code"):
        raise DataError(f"task.name: {name} executes the code that a model writes (unsafe_code), which is refused here")
    code = "class" in settings or any(isinstance(each, _Code) for each in _leaves(settings))
    if code and not found.is_installed and not run_code:
        raise DataError(f"task.run_code: {found.path.name} names Python code of its folder; task.run_code=true runs it")
    fetches = any(each.get("hf_evaluate") for each in settings.get("metric_list") or () if isinstance(each, Mapping))
    source = settings.get("dataset_path")
    local = source in LOCAL or (isinstance(source, str) and Path(source).expanduser().exists())
    if (fetches or not (local or settings.get("custom_dataset"))) and not download:
        what = "a metric" if fetches else f"the data set {source}"
        raise DataError(
            f"task.download: {name} fetches {what}; task.download=true lets it, or write a yaml with "
            "dataset_path: json and data_files, and name its folder (task.include_path)"
        )
    missing = [each for each in found.data_files if "://" not in each and not list(_matching(each))]
    if missing:
        raise DataError(f"task.name: {found.path.name} names data_files that are not here: {missing[0]}")


def files_of(found: Description) -> list[Path]:
    """Return the files that a task is made of and that lie here: its yamls and documents."""
    return [*found.yamls, *(file for each in found.data_files for file in _matching(each))]


def tasks_folder() -> Path:
    """Return the folder of lm-eval's own tasks. Raises TaskError where lm-eval is not installed."""
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise TaskError("task=lm_eval needs lm-eval: pip install 'paretune[lm-eval]'")
    return Path(spec.submodule_search_locations[0]).resolve() / "tasks"


def _yamls_with(folder: Path, name: str, known: list[str]) -> Iterator[Path]:
    """Yield the yamls that name a task or group ``name``; the names of all that are passed are added to ``known``."""
    named = re.compile(r"^(?:task|group):[ \t]*[\"']?([^\s\"'#\[]+)", re.MULTILINE)
    for path in sorted(folder.rglob("*.yaml")):
        names = named.findall(path.read_text(encoding="utf-8", errors="replace"))
        known.extend(names)
        if name in names:
            yield path.resolve()


def _merged(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], list[Path]]:
    """Return the settings of a yaml over those that it includes, and the files that hold them."""
    path = path.expanduser().resolve()
    if path in seen:
        raise DataError(f"task.name: {path.name} includes itself")
    try:
        own = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"task.name: cannot read {path.name}: {described(error)}") from error
    if not isinstance(own, dict):
        raise DataError(f"task.name: {path.name} holds no settings")
    merged: dict[str, Any] = {}
    files = [path]
    included = own.pop("include", [])
    for each in included if isinstance(included, list) else [included]:
        settings, more = _merged(path.parent / each, (*seen, path))
        merged.update({key: value for key, value in settings.items() if key != "task_list"})
        files += more
    return {**merged, **own}, files


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _strings(value: Any) -> Iterator[str]:
    yield from (each for each in _leaves(value) if isinstance(each, str))


def _matching(pattern: str) -> Sequence[Path]:
    path = Path(pattern).expanduser()
    if path.is_absolute():
        return sorted(each for each in path.parent.glob(path.name) if each.is_file())
    return sorted(each for each in Path().glob(pattern) if each.is_file())
