"""Why the objective side refuses to go on.

ObjectiveError
├── ModelError     a checkpoint is missing, incomplete, foreign or unsafe
├── AssetError     a fetched model or data set is missing or damaged (objectives.assets)
└── Unsupported    this candidate cannot be built or run here: the trial fails with that reason
"""

from __future__ import annotations


class ObjectiveError(Exception):
    """Base: one clear line for a person."""


class ModelError(ObjectiveError):
    """The model cannot be loaded as asked; names the file or folder and what was expected."""


class Unsupported(ObjectiveError):
    """No kernel, family or device for what the candidate asks."""
