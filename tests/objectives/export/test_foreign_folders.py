"""A winner's folder comes from anywhere: nothing in it is run, and nothing outside of it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from objectives.errors import ModelError
from objectives.export import winner
from objectives.export.rebuilt import set_attributes_
from objectives.runtime.engines.folder import made
from objectives.runtime.openvino import OpenVino
from objectives.runtime.torch import Torch

CODE = {"module": "timeit", "arguments": ["open('ran', 'w')"], "limit": 20.0}
FOREIGN = (
    ("objectives.runtime.engines.probe_process.run", CODE),
    ("objectives.runtime.engines.folder.read_facts", {"folder": "."}),
    ("objectives.runtime.torch.settings", {}),
    ("objectives.runtime.openvino.Packages", {"extra": "x", "run": ()}),
    ("os.system", {"command": "touch ran"}),
    ("objectives.runtimes.Torch", {}),
    ("objectives.content_hash.sha256", {"file": "/etc/passwd"}),
)


@pytest.mark.parametrize(("path", "settings"), FOREIGN)
def test_nothing_but_a_class_of_runtimes_is_called(
    path: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"^engine\.json: runtime"):
        made(path, settings, "engine.json: runtime")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runtime", [Torch(), OpenVino(precision="f32")])
def test_runtimes_of_ours_are_made(runtime: Any) -> None:
    kind = type(runtime)
    assert made(f"{kind.__module__}.{kind.__qualname__}", {**vars(runtime)}, "engine.json") == runtime


def test_a_users_class_is_admitted_by_its_whole_path_alone() -> None:
    with pytest.raises(ModelError, match="must start with"):
        made("mine.RuntimeOfOthers", {}, "engine.json", ("objectives.runtime.", "mine.Runtime"))


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "engine/../../secret"])
def test_a_manifest_names_no_file_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "winner"
    (folder / "engine").mkdir(parents=True)
    (tmp_path / "secret").write_text("s", encoding="utf-8")
    manifest = {"format": 7, "sha256": {name: "0"}}
    (folder / "paretune.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="must name files of its own folder"):
        winner.load(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("forward", "x"), ("_parameters", {}), ("training", [{1, 2}]), ("_forward_hooks", {})]
)
def test_a_manifest_sets_plain_attributes_alone(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match="none that may be set there"):
        set_attributes_(nn.Sequential(nn.Linear(2, 2)), {"0": {key: value}})


def test_plain_attributes_are_set() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    set_attributes_(module, {"0": {"scaling": 0.5}})
    assert module[0].scaling == 0.5
    assert isinstance(module[0].weight, torch.Tensor)
