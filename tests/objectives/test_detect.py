"""Which device ``auto`` is, decided from files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from objectives.devices import detect
from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda


def test_auto_is_the_gpu_only_where_a_driver_is_loaded_and_torch_can_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detect, "DRIVER", tmp_path / "none")
    assert detect.detect_device() == Cpu()
    monkeypatch.setattr(detect, "DRIVER", tmp_path)
    monkeypatch.setattr(detect, "_cuda_of_torch", lambda: "13.0")
    assert detect.detect_device() == Cuda()
    monkeypatch.setattr(detect, "_cuda_of_torch", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert detect.detect_device() == Cpu()
    assert "built without CUDA" in caplog.text


def test_what_torch_was_built_for_is_read_without_importing_it() -> None:
    import torch

    assert detect._cuda_of_torch() == torch.version.cuda
