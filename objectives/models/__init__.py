"""Models and their sources: the names that other files and ``conf/model`` use."""

from __future__ import annotations

from objectives.models.checkpoint_source import Checkpoint
from objectives.models.heads import auto_class
from objectives.models.loaded_model import LoadedModel, built_with, require_units

__all__ = ["Checkpoint", "LoadedModel", "auto_class", "built_with", "require_units"]
