"""What is optimised: real language models, compressed, run and measured.

Knows torch and transformers; never imports optuna, mlflow or hydra. The searcher in
:mod:`search` sees only what is free of torch at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.runtime.engines.runner import EngineRunner
    from objectives.runtime.in_torch.runner import TorchRunner

__all__ = ["load"]


def load(folder: str | Path, allow_targets: Sequence[str] = ()) -> TorchRunner | EngineRunner:
    """Load a folder written by ``paretune export``: something that encodes or generates, with its ``.tokenizer``.

    See :class:`Runner` for what it does. Of a model that torch runs, ``.module`` is that of
    transformers. Another runtime's package must be there. Threads, OpenMP and the allocator are set as they were when
    it was measured, where that can still be done; where not, a line of the log says what to set. A folder may come from
    anybody, so it may name no runtime but ours and those of the modules in ``allow_targets``. Raises
    ``objectives.errors.ObjectiveError`` naming the file and what was expected, or what to install.
    """
    from objectives.devices import process_settings

    process = process_settings.of_folder(Path(folder))
    process_settings.set_environment(process)  # before torch is imported
    from objectives.export.winner import load as load_folder

    process_settings.set_threads(process)
    return load_folder(Path(folder), allow_targets)
