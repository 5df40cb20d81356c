"""Makes OpenVINO's graphs of encoder-decoders: a reader and a writer, as :mod:`.openvino_graph` makes single ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from objectives.runtime.engines.folder import HALVES
from objectives.runtime.engines.openvino_graph import filled, save, write_graph
from objectives.runtime.engines.seq2seq_graph import halves
from objectives.runtime.engines.silence import silence

if TYPE_CHECKING:
    from objectives.models import LoadedModel


def convert_halves(model: LoadedModel, folder: Path) -> None:
    """Write both graphs of ``model``'s structure into ``folder``. Raises Unsupported."""
    with silence():
        exported, module = halves(model)
    for half, each in exported.items():
        write_graph(model, each, module, folder / f"{half}.xml")


def fill_halves(folder: Path, model: LoadedModel, engine: Path) -> tuple[dict[str, int], set[int]]:
    """Fill the graphs in ``folder`` with the weights of ``model``, and write them into the folder ``engine``.

    Returns the bytes of each matrix by name, and the bits that occur. An embedding that both read is stored, and
    counted, in both.
    """
    stored: dict[str, int] = {}
    bits: set[int] = set()
    for half in HALVES:
        complete, sizes, widths = filled(folder, model, part=f"{half}.xml")
        save(complete, engine / f"{half}.xml")
        bits |= widths
        for owner, size in sizes.items():
            stored[owner] = stored.get(owner, 0) + size
    return stored, bits
