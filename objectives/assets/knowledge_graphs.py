"""Small knowledge graphs with readable names, taken from the pykeen wheel: nations, umls, kinships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import Say
from objectives.assets.wheels import download_wheel, extract

_WHEEL = "pykeen==1.11.1"
_SHA256 = "b6cc0ab012fc6ba4f37b58fb7081a409a5c1f04cbbb0e0e9c2256e911757d4ba"
_HEADER = "head\trelation\ttail\n"

GRAPHS = ("nations", "umls", "kinships")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class KnowledgeGraphs:
    """A folder for each graph with ``train.tsv``, ``valid.tsv`` and ``test.tsv``: head, relation, tail."""

    name: str = "knowledge-graphs"
    version: str = "1.11.1"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the wheel, and write its triples as tables."""
        say(f"downloading {_WHEEL} (0.7 MB)")
        wheel = download_wheel(_WHEEL, _SHA256, into.parent)
        for graph in GRAPHS:
            for split in SPLITS:
                extract(wheel, f"pykeen/datasets/{graph}/{split}.txt", into / graph)
                file = into / graph / f"{split}.txt"
                file.with_suffix(".tsv").write_text(_HEADER + file.read_text(encoding="utf-8"), encoding="utf-8")
                file.unlink()
        extract(wheel, "pykeen-1.11.1.dist-info/licenses/LICENSE", into)


ASSET = KnowledgeGraphs()
