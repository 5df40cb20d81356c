"""Which device ``auto`` is, decided without torch."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from objectives.devices import detect
from objectives.devices.cpu import Cpu
from objectives.devices.cuda import Cuda
from objectives.devices.driver import gpus


def test_auto_is_the_gpu_only_where_the_driver_has_one_and_torch_can_use_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detect, "gpus", lambda: 0)
    assert detect.detect_device() == Cpu()
    monkeypatch.setattr(detect, "gpus", lambda: 2)
    monkeypatch.setattr(detect, "cuda_of_torch", lambda: "13.0")
    assert detect.detect_device() == Cuda()
    monkeypatch.setattr(detect, "cuda_of_torch", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert detect.detect_device() == Cpu()
    assert "built without CUDA" in caplog.text


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for a made-up driver")
@pytest.mark.parametrize(("answers", "found"), [("0, 3", 3), ("100, 3", 0), ("0, 0", 0)])
def test_gpus_are_counted_by_the_driver(tmp_path: Path, answers: str, found: int) -> None:
    status, count = answers.split(", ")
    (tmp_path / "driver.c").write_text(
        f"int cuInit(unsigned flags) {{ return {status}; }} int cuDeviceGetCount(int *n) {{ *n = {count}; return 0; }}"
    )
    driver = tmp_path / "driver.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", driver, tmp_path / "driver.c"], check=True)
    assert gpus(str(driver)) == found


def test_without_a_driver_there_is_no_gpu(tmp_path: Path) -> None:
    assert gpus(str(tmp_path / "none.so")) == 0


def test_what_torch_was_built_for_is_read_without_importing_it() -> None:
    code = (
        "import sys; from objectives.devices.driver import cuda_of_torch; found = cuda_of_torch();"
        "assert 'torch' not in sys.modules; import torch; assert found == torch.version.cuda"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
