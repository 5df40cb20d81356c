"""Writes what calibration learned as a safetensors file, and reads it back to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from objectives.calibration.moments import Moment, Moments

Key = tuple[str, str]

_PLACES, _SHARES = "places", "shares"
"""Names in the file's metadata: by key the number of its tensor, and by number the share of a moment."""


def save_moments(moments: Moments, file: Path) -> None:
    """Write moments; linears that share one share it in the file."""
    distinct = {id(moment): moment for moment in moments.values()}
    numbers = {identity: number for number, identity in enumerate(distinct)}
    tensors = {
        f"{kind}.{numbers[identity]}": getattr(moment, kind).contiguous()
        for identity, moment in distinct.items()
        for kind in ("mean", "second")
    }
    places = [[*key, numbers[id(moment)]] for key, moment in moments.items()]
    shares = [moment.share for moment in distinct.values()]
    save_file(tensors, file, {_PLACES: json.dumps(places), _SHARES: json.dumps(shares)})


def load_moments(file: Path) -> dict[Key, Moment]:
    """Read what :func:`save_moments` wrote."""
    with safe_open(file, framework="pt") as stored:
        shares = json.loads(stored.metadata()[_SHARES])
        moments = [
            Moment(stored.get_tensor(f"mean.{number}"), stored.get_tensor(f"second.{number}"), share)
            for number, share in enumerate(shares)
        ]
        return {(block, path): moments[number] for block, path, number in json.loads(stored.metadata()[_PLACES])}


def save_gradients(gradients: Mapping[Key, Tensor], file: Path) -> None:
    """Write second moments of gradients, or their diagonals."""
    tensors = {str(number): each.contiguous() for number, each in enumerate(gradients.values())}
    save_file(tensors, file, {_PLACES: json.dumps([[*key, number] for number, key in enumerate(gradients)])})


def load_gradients(file: Path) -> dict[Key, Tensor]:
    """Read what :func:`save_gradients` wrote."""
    with safe_open(file, framework="pt") as stored:
        places = json.loads(stored.metadata()[_PLACES])
        return {(block, path): stored.get_tensor(str(number)) for block, path, number in places}
