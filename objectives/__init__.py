"""What is optimised: real language models, compressed, run and measured.

Knows torch and transformers; never imports optuna, mlflow or hydra. The searcher in
:mod:`search` sees only what is free of torch at import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.models import LoadedModel

__all__ = ["load"]


def load(folder: str | Path) -> LoadedModel:
    """Load a folder written by ``paretune export``: ``.module`` is the model, ``.tokenizer`` its tokenizer.

    Raises ``objectives.errors.ModelError`` naming the file and what was expected.
    """
    from objectives.checkpoint import load as load_folder

    return load_folder(Path(folder))
