"""Makes ONNX graphs of encoder-decoders: a reader and a writer, as :mod:`.onnx_graph` makes single ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from objectives.runtime.engines.folder import HALVES
from objectives.runtime.engines.onnx_graph import fill, write_graph
from objectives.runtime.engines.seq2seq_graph import halves
from objectives.runtime.engines.silence import silence

if TYPE_CHECKING:
    from objectives.models import LoadedModel


def convert_halves(model: LoadedModel, folder: Path) -> None:
    """Write both graphs of ``model``'s structure into ``folder``. Raises Unsupported."""
    with silence():
        exported, module = halves(model, square=True)
    for half, each in exported.items():
        write_graph(model, each, module, folder / f"{half}.onnx")


def fill_halves(
    folder: Path, model: LoadedModel, engine: Path, group: int
) -> tuple[list[list[int]], dict[str, int], int]:
    """Fill the graphs in ``folder`` with the weights of ``model``, and write them into the folder ``engine``.

    ``group``, and what is returned: see :func:`objectives.runtime.engines.onnx_graph.fill`. An embedding that both
    graphs read is stored, and counted, in both.
    """
    caches: list[list[int]] = []
    stored: dict[str, int] = {}
    others = 0
    for name in (f"{half}.onnx" for half in HALVES):
        found, sizes, rest = fill(folder, model, engine / name, group, by_batch=False, part=name)
        caches, others = caches + found, others + rest
        for owner, size in sizes.items():
            stored[owner] = stored.get(owner, 0) + size
    return caches, stored, others
