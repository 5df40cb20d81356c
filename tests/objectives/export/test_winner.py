"""A winner's folder answers as it was measured, whoever opens it; else it is refused, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from objectives import load
from objectives.content_hash import sha256
from objectives.devices import process_settings
from objectives.errors import ModelError, Unsupported
from objectives.export import checkpoint, export_check, stock, winner
from objectives.export.export_check import answers, differing, model_answers
from objectives.models import LoadedModel, auto_class
from objectives.models.families import FAMILIES
from objectives.runtime.engines.folder import Facts, made, write_facts
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.formats import plain_config
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.runtime.onnxruntime import OnnxRuntime
from objectives.runtime.torch import Torch
from tests.objectives.runtimes import Hand, rounded
from tests.objectives.winners import (
    BITS,
    IDS,
    KINDS,
    cut,
    keeps_its_function,
    model_of,
    opened_by_transformers,
    outcome,
    packed,
)

ROOT = Path(__file__).parents[3]
HALVES = ["sliding_attention", "full_attention"] * 2
SWITCHED: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt2", {"reorder_and_upcast_attn": True, "scale_attn_weights": False}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 4}),
    ("qwen3", {"layer_types": HALVES, "sliding_window": 4, "use_sliding_window": True}),
    ("gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 3.0}),
    ("gemma3_text", {"layer_types": HALVES[::-1], "sliding_window": 4}),
    ("gemma", {"hidden_act": "relu"}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("mistral", {"sliding_window": 4}),
    ("opt", {"do_layer_norm_before": False}),
    ("opt", {"word_embed_proj_dim": 32}),
    ("bart", {"decoder_layers": 2}),
    ("marian", {"scale_embedding": False}),
    ("t5", {"feed_forward_proj": "gated-gelu"}),
    ("t5", {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}),
    ("bert", {"is_decoder": True}),
    ("roberta", {"hidden_act": "relu"}),
    ("electra", {"layer_norm_eps": 0.1}),
    ("distilbert", {"sinusoidal_pos_embds": True}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}),
]
"""Of each kind one: by place, by number of blocks, by neighbours, by width, by place of the token."""


@pytest.mark.parametrize(("place", "family"), list(enumerate(sorted(FAMILIES))))
def test_a_folder_of_each_family_answers_as_it_was_measured(tmp_path: Path, place: int, family: str) -> None:
    two_blocks = {stack.depth: 2 for stack in FAMILIES[family].stacks if stack.depth}
    dense = model_of(family, two_blocks)
    found = outcome(dense, KINDS[place % len(KINDS)], BITS[place % len(BITS)], tmp_path / "winner")
    assert not found.startswith("FAULT"), found


@pytest.mark.parametrize(("family", "changes"), SWITCHED, ids=str)
def test_what_a_block_derives_from_its_place_goes_with_it(tmp_path: Path, family: str, changes: Any) -> None:
    dense = model_of(family, changes)
    assert keeps_its_function(dense) == "yes"
    assert outcome(dense, "depth", 16, tmp_path / "winner") in {"plain", "closed"}


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("kind", ["dense", "depth", "even"])
def test_16_bits_are_a_plain_checkpoint_where_a_config_says_so(tmp_path: Path, family: str, kind: str) -> None:
    wanted = "plain" if kind != "even" or family == "llama" else "closed"
    assert outcome(model_of(family), kind, 16, tmp_path / "winner") == wanted
    if wanted == "plain":
        module = auto_class(model_of(family).head).from_pretrained(tmp_path / "winner", dtype="auto")
        assert module.dtype == torch.bfloat16


CLASSES = (transformers.AutoConfig, transformers.AutoModel, transformers.AutoModelForCausalLM,
           transformers.AutoModelForSequenceClassification, transformers.LlamaForCausalLM, transformers.LlamaModel,
           transformers.MistralForCausalLM)  # fmt: skip


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closed") / "winner"
    assert outcome(model_of("llama"), "both", 8, folder) == "closed"
    return folder


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "full"), ValueError("no"), OSError("no")], ids=repr)
def test_what_no_folder_can_help_is_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(plain_config, "stock_class", fail)
    caplog.set_level("DEBUG", plain_config.__name__)
    model = model_of("llama")
    if str(error) == "no":
        assert plain_config._mismatches(model.module.config, model, {}) is None
        assert "Error: no" in caplog.text
    else:
        with pytest.raises(type(error)):
            plain_config._mismatches(model.module.config, model, {})


def test_fields_of_tokens_are_not_tried_and_few_that_hold_nothing_are() -> None:
    config = transformers.GPT2Config(n_inner=None, pad_token_id=None, **{f"unset{i}": None for i in range(30)})
    tried = [next(iter(change)) for change in plain_config._fields(config, 4 * config.n_embd, 64)]
    assert tried[0] == "n_inner"
    assert len(tried) <= plain_config.TRIES
    assert not [name for name in tried if "token" in name or name.endswith("_id")]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_is_no_checkpoint_is_opened_by_no_class_of_transformers(closed: Path, cls: Any) -> None:
    with pytest.raises((ValueError, OSError), match=r"objectives\.load"):
        cls.from_pretrained(closed)


def test_the_tokenizer_of_a_closed_folder_opens(closed: Path) -> None:
    found = transformers.AutoTokenizer.from_pretrained(closed)
    assert found("ab!").input_ids == load(closed).tokenizer("ab!").input_ids


# ---- what is otherwise in the measured model


def test_attributes_and_buffers_that_nobody_knows_of_come_back(tmp_path: Path) -> None:
    model = packed(cut(model_of("llama"), "depth"), 8)
    model.module.model.layers[1].self_attn.scaling = 0.3
    model.module.model.rotary_emb.inv_freq = model.module.model.rotary_emb.inv_freq * 0.5
    wanted = model_answers(model, IDS)
    winner.save(TorchRunner(model), model, tmp_path / "winner", {}, IDS)
    assert differing(answers(load(tmp_path / "winner"), IDS), wanted) is None
    manifest = json.loads((tmp_path / "winner" / "paretune.json").read_text())
    assert manifest["attributes"] == {"model.layers.1.self_attn": {"scaling": 0.3}}
    assert manifest["buffers"] == ["model.rotary_emb.inv_freq"]


def test_a_dense_model_with_another_attribute_is_no_plain_checkpoint(tmp_path: Path) -> None:
    model = packed(model_of("llama"), 16)
    model.module.model.layers[0].self_attn.scaling = 0.3
    winner.save(TorchRunner(model), model, tmp_path / "winner", {}, IDS)
    assert opened_by_transformers(tmp_path / "winner", model, model_answers(model, IDS)) == "closed"


@pytest.mark.parametrize("change", ["function", "module"])
def test_what_cannot_be_written_down_is_refused_by_name(tmp_path: Path, change: str) -> None:
    model = packed(model_of("llama"), 8)
    mlp = model.module.model.layers[1].mlp
    if change == "function":
        mlp.scale = lambda values: values * 2
    else:
        mlp.act_fn = torch.nn.ReLU()
    with pytest.raises(Unsupported, match=r"model\.layers\.1\.mlp\.(scale|act_fn): built again"):
        winner.save(TorchRunner(model), model, tmp_path / "winner", {}, IDS)
    assert list(tmp_path.iterdir()) == []


def test_the_way_attention_is_computed_comes_back(tmp_path: Path) -> None:
    model = packed(model_of("llama"), 8)
    model.module.set_attn_implementation("eager")
    winner.save(TorchRunner(model), model, tmp_path / "winner", {}, IDS)
    assert load(tmp_path / "winner").module.config._attn_implementation == "eager"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("family", "name"), [("llama", "layers.3"), ("t5", "decoder.block.1"), ("bert", "encoder.layer.1")]
)
def test_an_export_that_answers_otherwise_names_the_first_block_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, name: str
) -> None:
    model = packed(cut(model_of(family), "depth"), 8)

    def spoilt(folder: Path, honest: Callable[[Path], LoadedModel] = checkpoint.load) -> LoadedModel:
        again = honest(folder)
        block = again.block(name)
        for tensor in (*block.module.parameters(), *block.module.buffers()):
            tensor.add_(1)
        return again

    monkeypatch.setattr(checkpoint, "load", spoilt)
    with pytest.raises(ModelError, match=f"otherwise than it was measured: {name} differs first"):
        winner.save(TorchRunner(model), model, tmp_path / "winner", {}, IDS)
    assert list(tmp_path.iterdir()) == []


# ---- what was written earlier


@pytest.mark.parametrize("kind", ["dense", "width", "depth"])
def test_a_folder_of_format_5_still_loads(tmp_path: Path, kind: str) -> None:
    model = packed(cut(model_of("llama"), kind), 4)
    old, new = tmp_path / "old", tmp_path / "new"
    checkpoint.save(model, new)
    manifest = json.loads((new / "paretune.json").read_text())
    old.mkdir()
    model.module.config.save_pretrained(old)
    model.module.generation_config.save_pretrained(old)
    model.tokenizer.save_pretrained(old)
    save_file(load_file(new / stock.OWN_WEIGHTS), old / "model.safetensors", metadata={"format": "pt"})
    kept = {key: manifest[key] for key in ("versions", "head", "layers", "widths", "linears", "notes")}
    hashes = {name: sha256(old / name) for name in ("model.safetensors", "config.json")}
    (old / "paretune.json").write_text(json.dumps({"format": 5, **kept, "sha256": hashes}))
    again = load(old)
    assert isinstance(again, TorchRunner)
    assert again.model.layers == model.layers
    assert differing(answers(again, IDS), model_answers(model, IDS)) is None


# ---- engines


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineRunner, LoadedModel]:
    model = packed(model_of("llama", {"num_hidden_layers": 1}), 16)
    made = OnnxRuntime().prepare(Hand(model, rounded(16), tmp_path_factory.mktemp("engines")))  # type: ignore[arg-type]
    assert isinstance(made, EngineRunner)
    return made, model


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_engine_is_opened_by_no_class_of_transformers(engine: Any, tmp_path: Path, cls: Any) -> None:
    winner.save(*engine, tmp_path / "winner", {}, IDS)
    with pytest.raises((ValueError, OSError), match=r"objectives\.load"):
        cls.from_pretrained(tmp_path / "winner")
    assert load(tmp_path / "winner").tokenizer("ab!").input_ids == engine[1].tokenizer("ab!").input_ids


def test_an_engine_that_answers_otherwise_is_not_left_behind(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EngineRunner.open

    def spoilt(*given: Any) -> EngineRunner:
        again = honest(*given)
        monkeypatch.setattr(again, "logits", lambda ids: engine[0].logits(ids) * 1.01)
        return again

    monkeypatch.setattr(EngineRunner, "open", spoilt)
    with pytest.raises(ModelError, match="otherwise than it was measured: the engine's answer"):
        winner.save(*engine, tmp_path / "winner", {}, IDS)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_format_6_still_loads(engine: Any, tmp_path: Path) -> None:
    """Its config.json is the model's."""
    folder = tmp_path / "winner"
    winner.save(*engine, folder, {}, IDS)
    (folder / stock.OWN_CONFIG).rename(folder / "config.json")
    manifest = json.loads((folder / "paretune.json").read_text())
    manifest["sha256"] = {name: sha256(folder / name) for name in manifest["sha256"] if name != stock.OWN_CONFIG}
    (folder / "paretune.json").write_text(json.dumps({**manifest, "format": 6}))
    assert differing(answers(load(folder), IDS), answers(engine[0], IDS), 1e-5) is None


# ---- the cache of compressed models


def test_a_kept_model_that_answers_otherwise_is_found_out(tmp_path: Path) -> None:
    model = packed(cut(model_of("llama"), "width"), 8)
    folder = tmp_path / "entry"
    checkpoint.save(model, folder)
    export_check.write_answers(folder, model, IDS)
    export_check.check_answers(folder, checkpoint.load(folder))
    manifest = json.loads((folder / "paretune.json").read_text())
    manifest["attributes"] = {"model.layers.1.self_attn": {"scaling": 0.3}}
    (folder / "paretune.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="answers otherwise than when it was made"):
        export_check.check_answers(folder, checkpoint.load(folder))
    (folder / export_check.ANSWERS).unlink()
    with pytest.raises(ModelError, match=r"answers\.safetensors: no answers"):
        export_check.check_answers(folder, checkpoint.load(folder))


# ---- the process


FIRST_LATE = """
import os, sys, objectives
objectives.load(sys.argv[1])
import torch
print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'), torch.get_num_threads())
objectives.load(sys.argv[1])  # OpenMP is loaded, with the right variables
print("late", file=sys.stderr)
del os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT']
objectives.load(sys.argv[1])
objectives.load(sys.argv[1])
"""
"""Loads a winner before torch is imported, and after OpenMP was loaded with and without what the winner wants."""


@pytest.mark.parametrize(
    ("waiting", "environment"),
    [
        ("PASSIVE 5000", {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}),
        ("ACTIVE", {"OMP_WAIT_POLICY": "ACTIVE"}),
        ("70", {"GOMP_SPINCOUNT": "70"}),
        ("default", {}),
    ],
)
def test_a_manifest_says_what_the_measuring_process_noted(waiting: str, environment: dict[str, str]) -> None:
    found = process_settings.measured_with({"threads": "3", "omp_wait_policy": waiting})
    assert found == {"threads": 3, "environment": environment}


def test_a_variable_that_was_not_set_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "70")
    assert process_settings.here(2) == {"threads": 2, "environment": {"GOMP_SPINCOUNT": "70"}}


def test_loading_sets_what_the_measurement_had_and_says_once_what_it_cannot(closed: Path, tmp_path: Path) -> None:
    shutil.copytree(closed, tmp_path / "winner")
    closed = tmp_path / "winner"
    measured = process_settings.measured_with({"threads": "1", "omp_wait_policy": "PASSIVE 5000"})
    manifest = json.loads((closed / "paretune.json").read_text()) | {"process": measured}
    (closed / "paretune.json").write_text(json.dumps(manifest))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_LATE, str(closed)],
        cwd=ROOT, env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "PASSIVE 5000 1"
    first, late = done.stderr.split("late\n")
    assert "measured with" not in first
    said = [line for line in late.splitlines() if "OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=5000" in line]
    assert len(said) == 1


@pytest.mark.parametrize("bits", [16, 8])
def test_what_a_model_notes_while_it_runs_does_not_go_with_it(tmp_path: Path, bits: int) -> None:
    model = packed(model_of("llama"), bits)
    states = len(model.module(IDS, output_hidden_states=True).hidden_states)
    winner.save(TorchRunner(model), model, tmp_path / "winner", {}, IDS)
    again: Any = load(tmp_path / "winner")
    assert len(again.module(IDS, output_hidden_states=True).hidden_states) == states > 0


def test_a_runtime_of_torch_prepares_the_model_as_it_was_measured(tmp_path: Path) -> None:
    model = packed(model_of("llama"), 8)
    facts = {"prepared": winner.in_torch(Torch(prompt_lookup=3), {"one": [IDS]})}
    winner.save(TorchRunner(model), model, tmp_path / "winner", facts, IDS)
    assert type(load(tmp_path / "winner")).__name__ == "PromptLookupRunner"


FOREIGN = {
    "os.system": {"command": "touch ran"},
    "objectives.runtime.engines.probe_process.run": {
        "module": "timeit",
        "arguments": ["-n1", "open('ran', 'w')"],
        "limit": 9,
    },
    "objectives.runtime.engines.probe_process.Ended": {
        "code": 0,
        "signal": None,
        "answer": "",
        "said": "",
        "limit": 1.0,
    },
    "objectives.runtime.engines.folder.Path": {},
    "objectives.runtime.engines.guard.os.system": {"command": "touch ran"},
    "": {},
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", ["engine", "torch"])
def test_a_folder_runs_nothing_but_runtimes(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "winner"
    shutil.copytree(closed, folder)
    manifest = json.loads((folder / "paretune.json").read_text())
    if kind == "torch":
        manifest["prepared"] = {"class": name, "settings": FOREIGN[name], "rows": [[1]]}
    else:
        (folder / winner.ENGINE).mkdir()
        facts = Facts(name, FOREIGN[name], {}, "causal_lm", 9, (), {}, 0, 0, 0, 0.0, None, ())
        write_facts(folder / winner.ENGINE, facts)
    (folder / "paretune.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"must start with|is no class of runtimes|cannot be made"):
        load(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["winner"]


def test_a_whole_path_that_is_allowed_allows_no_longer_one() -> None:
    with pytest.raises(ModelError, match="must start with"):
        made("tests.objectives.faulty_engine.FaultyRuntimeOther", {}, "runtime", (FAULTY,))
    assert type(made(FAULTY, {}, "runtime", (FAULTY,))).__name__ == "FaultyRuntime"


FAULTY = "tests.objectives.faulty_engine.FaultyRuntime"


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "engine/../../outside"])
def test_a_manifest_names_files_of_its_folder_only(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "winner"
    (folder / winner.ENGINE).mkdir(parents=True)
    (folder / "paretune.json").write_text(json.dumps({"format": 7, "sha256": {name: "0"}}))
    with pytest.raises(ModelError, match="must name files of its own folder"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"attention": "someone/kernels"},
        {"attributes": {"": {"forward": 1}}},
        {"attributes": {"": {"model": None}}},
        {"attributes": {"": {"training": True}}},
        {"attributes": {"": {"config": {}}}},
    ],
    ids=str,
)
def test_a_manifest_sets_nothing_but_plain_attributes(closed: Path, tmp_path: Path, change: Any) -> None:
    shutil.copytree(closed, tmp_path / "winner")
    manifest = json.loads((tmp_path / "winner" / "paretune.json").read_text())
    (tmp_path / "winner" / "paretune.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ModelError, match=r"attention must be|none that may be set"):
        load(tmp_path / "winner")


@pytest.mark.slow
def test_a_plain_process_is_as_fast_as_the_study_was(tmp_path: Path) -> None:
    """On a quiet machine; a disturbed one is tried again."""
    paretune = [sys.executable, "-m", "search.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    run = ["run", "experiment=ci_tiny", "n_trials=3", "workload.prompt_tokens=64", "tracker=none"]
    subprocess.run([*paretune, *run], cwd=tmp_path, env=environment, check=True)
    subprocess.run([*paretune, "export", "folder=winner", "trial=0"], cwd=tmp_path, env=environment, check=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "winners.py"), "--speed", str(tmp_path / "winner")]
    tries = [subprocess.run(command, check=False).returncode for _ in range(3)]
    assert 0 in tries
