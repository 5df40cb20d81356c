"""A loaded model becomes a checkpoint named by its content, which answers as it did."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from objectives.errors import ModelError
from objectives.models import Checkpoint
from objectives.models.inspection import made_for
from objectives.models.kept_model import keep_model


@pytest.fixture
def loaded(tiny_folder: Callable[[str], Path]) -> Any:
    """A tiny GPT-2 as a program loads it, in float32."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder("gpt2"), dtype=torch.float32)


@pytest.fixture
def tokenizer(tiny_folder: Callable[[str], Path]) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder("gpt2"))


def test_a_kept_model_is_a_checkpoint_with_the_same_answers(loaded: Any, tokenizer: Any, tmp_path: Path) -> None:
    folder = keep_model(loaded, tokenizer, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(2, 26).view(2, 12)
    with torch.inference_mode():
        torch.testing.assert_close(again(ids).logits, loaded(ids).logits, rtol=0, atol=0)
    assert made_for(str(folder)) == "causal_lm"
    Checkpoint(path=str(folder), head="causal_lm").load()


def test_equal_models_are_one_folder_and_another_weight_is_another(loaded: Any, tokenizer: Any, tmp_path: Path) -> None:
    first = keep_model(loaded, tokenizer, tmp_path)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert keep_model(copy.deepcopy(loaded), tokenizer, tmp_path) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    changed = copy.deepcopy(loaded)
    with torch.no_grad():
        next(changed.parameters())[0, 0] += 1
    assert keep_model(changed, tokenizer, tmp_path) != first
    moved = shutil.copytree(first, tmp_path.parent / f"{tmp_path.name}-moved")
    elsewhere = AutoModelForCausalLM.from_pretrained(moved, dtype=torch.float32)
    assert keep_model(elsewhere, AutoTokenizer.from_pretrained(moved), tmp_path) == first
    assert keep_model(loaded.to(torch.bfloat16), tokenizer, tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 3  # nothing unfinished stays


def test_the_tokenizer_is_that_of_the_place_that_the_model_came_from(loaded: Any, tmp_path: Path) -> None:
    folder = keep_model(loaded, None, tmp_path)
    assert keep_model(loaded, loaded.name_or_path, tmp_path) == folder
    assert (folder / "tokenizer.json").is_file()


def test_a_model_without_a_tokenizer_is_refused(loaded: Any, tmp_path: Path) -> None:
    loaded.config._name_or_path = ""
    made = type(loaded)(loaded.config)
    with pytest.raises(ModelError, match=r"tokenizer: none given, and the model does not say .*give tokenizer="):
        keep_model(made, None, tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer: none can be loaded from .*nowhere \(as given\)"):
        keep_model(made, tmp_path / "nowhere", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_whole_model_is_refused(loaded: Any, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model: a PreTrainedModel of transformers expected, got Linear"):
        keep_model(torch.nn.Linear(2, 2), tokenizer, tmp_path)
    with pytest.raises(ModelError, match=r"model: it has adapters"):
        keep_model(SimpleNamespace(peft_config={}), tokenizer, tmp_path)
    with pytest.raises(ModelError, match=r"model: the weight .* is not in memory"):
        keep_model(loaded.to("meta"), tokenizer, tmp_path)
