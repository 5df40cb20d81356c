"""What calibration learned comes back from a file to the bit."""

from __future__ import annotations

from pathlib import Path

import torch

from objectives.calibration.moments import Moment
from objectives.calibration.stored_statistics import load_gradients, load_moments, save_gradients, save_moments


def test_moments_come_back_to_the_bit_and_shared_ones_are_written_once(tmp_path: Path) -> None:
    shared = Moment(torch.randn(3), torch.randn(3, 3), 0.25)
    moments = {("a", "q"): shared, ("a", "k"): shared, ("b", "up"): Moment(torch.randn(500), torch.randn(500, 500))}
    save_moments(moments, tmp_path / "file")
    loaded = load_moments(tmp_path / "file")
    assert list(loaded) == list(moments)
    assert loaded["a", "q"] is loaded["a", "k"]
    for key, moment in moments.items():
        assert torch.equal(loaded[key].mean, moment.mean)
        assert torch.equal(loaded[key].second, moment.second)
        assert loaded[key].share == moment.share
    assert (tmp_path / "file").stat().st_size < 4 * (500 * 500 + 500) + 2000


def test_gradients_come_back_to_the_bit(tmp_path: Path) -> None:
    gradients = {("a", "down"): torch.randn(4, 4), ("a", "out"): torch.randn(4)}
    save_gradients(gradients, tmp_path / "file")
    loaded = load_gradients(tmp_path / "file")
    assert list(loaded) == list(gradients)
    assert all(torch.equal(loaded[key], gradients[key]) for key in gradients)
