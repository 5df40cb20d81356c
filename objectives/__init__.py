"""The objectives of the search: real language models, compressed, run and measured.

This package knows torch and transformers, and never imports optuna, mlflow or hydra. The searcher in :mod:`search`
imports only the modules that are free of torch at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.protocols.moved import keep_old_imports

if TYPE_CHECKING:
    from objectives.runtime.engines.runner import EngineRunner
    from objectives.runtime.in_torch.runner import TorchRunner

__all__ = ["load"]

keep_old_imports()


def load(folder: str | Path, allow_targets: Sequence[str] = ()) -> TorchRunner | EngineRunner:
    """Load a folder written by ``paretune export`` as a runner that encodes or generates, with its ``.tokenizer``.

    See :class:`objectives.protocols.running.Runner` for its methods. Where torch runs the model, ``.module`` is the
    module of transformers; where another runtime does, its package must be installed. Threads, OpenMP and the allocator
    are set as they were when the model was measured, where that can still be done; where not, a line of the log says
    what to set. A folder may come from anybody, so it may name only our runtimes and those of the modules in
    ``allow_targets``. Raises ``objectives.errors.ObjectiveError`` naming the file and what was expected, or what to
    install.
    """
    from objectives.devices import process_settings

    process = process_settings.of_folder(Path(folder))
    process_settings.set_environment(process)  # before torch is imported
    from objectives.export.winner import load as load_folder

    process_settings.set_threads(process)
    return load_folder(Path(folder), allow_targets)
