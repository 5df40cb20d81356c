"""llama.cpp in its process: caches in any order, what it costs, and how it ends."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from objectives.devices import helpers
from objectives.errors import ProcessLost, Unsupported
from objectives.models import LoadedModel
from objectives.runtime.engines import llama_library, llama_model
from objectives.runtime.engines.folder import read_facts, runtime_of
from objectives.runtime.engines.llama_engine import LlamaDecoder
from objectives.runtime.engines.llama_formula import require_formula
from objectives.runtime.engines.masks import causal
from objectives.runtime.formats import gguf_weights
from objectives.runtime.llama_cpp import OWN, LlamaCpp
from objectives.types import Phase
from tests.conftest import SIZES
from tests.objectives.runtimes import Hand, compressed, head_of, rounded

ROWS, TOKENS = 3, 20
LLAMA_3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
IDS = np.random.default_rng(3).integers(2, 128, (ROWS, TOKENS))


@pytest.fixture(scope="module")
def file(tiny: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("gguf") / "model.gguf"
    gguf_weights.write(compressed(tiny("llama"), None, rounded(16)), written)
    return written


def opened(file: Path, **how: object) -> LlamaDecoder:
    return LlamaDecoder(file, **{"place": "", "threads": 1, "kv_bits": 32, "repack": True, **how})  # type: ignore[arg-type]


def run(
    engine: LlamaDecoder, ids: np.ndarray, cache: object, seen: int, wanted: list[int]
) -> tuple[np.ndarray, object]:
    rows, tokens = ids.shape
    places = np.broadcast_to(np.arange(seen, seen + tokens), ids.shape)
    return engine.run(ids, causal(rows, tokens, seen + tokens, None), places, np.array(wanted), cache)  # type: ignore[arg-type,return-value]


def test_a_cache_goes_on_in_any_order_and_more_than_once(file: Path) -> None:
    engine = opened(file)
    whole, _ = run(engine, IDS, engine.start(ROWS), 0, list(range(TOKENS)))
    _, half = run(engine, IDS[:, :12], engine.start(ROWS), 0, [11])
    for order in ([0, 1, 2], [2, 0, 1], [1], [0, 0, 2]):
        cache = engine.select(half, order)  # type: ignore[arg-type]
        rest, _ = run(engine, IDS[order, 12:], cache, 12, list(range(8)))
        assert np.allclose(rest, whole[order, 12:], atol=1e-4)
    again, _ = run(engine, IDS[:, :12], engine.start(ROWS), 0, [3, 3, 0])
    assert np.allclose(again, whole[:, [3, 3, 0]], atol=1e-4)


def test_long_texts_and_many_rows_take_several_passes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = llama_library.loaded("")
    model = llama_model.Model(library, file, llama_model.Settings(1, 32))
    texts = [row.astype(np.int32) for row in IDS]
    wanted = [np.array([0, 7, 19]), np.array([19]), np.arange(20)]
    at_once = model.logits(texts, wanted)
    monkeypatch.setattr(llama_model, "PASS", 7)
    model.reset(ROWS, TOKENS)
    assert np.allclose(model.logits(texts, wanted), at_once, atol=1e-4)


def test_it_generates_the_likeliest_tokens_and_tells_every_pass(file: Path) -> None:
    engine = opened(file)
    out, phases = np.zeros((ROWS, 4), np.int64), list[Phase]()
    engine.generate(IDS, out, None, lambda phase, _held: phases.append(phase))
    assert phases == ["prefill", "decode", "decode", "decode"]
    ids = IDS
    for place in range(4):
        logits, _ = run(engine, ids, engine.start(ROWS), 0, [ids.shape[1] - 1])
        assert (logits[:, 0].argmax(axis=1) == out[:, place]).all()
        ids = np.concatenate([ids, out[:, place : place + 1]], axis=1)


def test_padding_on_the_left_changes_nothing(file: Path) -> None:
    engine = opened(file)
    mask = np.ones((ROWS, TOKENS), np.bool_)
    mask[1, :5] = False
    padded, alone = np.zeros((ROWS, 3), np.int64), np.zeros((1, 3), np.int64)
    engine.generate(IDS, padded, mask, None)
    engine.generate(IDS[1:2, 5:], alone, None, None)
    assert (padded[1] == alone[0]).all()


def test_its_process_ends_with_its_owner(file: Path) -> None:
    engine = opened(file)
    child = engine._process
    assert child.pid in helpers.pids()
    del engine
    child.wait(5)
    assert child.pid not in helpers.pids()


def test_a_process_that_was_killed_is_told(file: Path) -> None:
    engine = opened(file)
    os.kill(engine._process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLost, match=r"llama\.cpp ended its process: killed by SIGKILL"):
        engine.generate(IDS, np.zeros((ROWS, 2), np.int64), None, None)


def test_it_takes_no_cpu_time_while_it_waits(file: Path) -> None:
    engine = opened(file, threads=2)
    engine.generate(IDS, np.zeros((ROWS, 2), np.int64), None, None)
    time.sleep(0.3)
    before = psutil.Process(engine._process.pid).cpu_times()
    time.sleep(0.5)
    after = psutil.Process(engine._process.pid).cpu_times()
    assert after.user + after.system - before.user - before.system < 0.05


def test_a_damaged_file_and_a_library_that_is_none_are_refused(file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(Unsupported, match=r"llama\.cpp cannot open torn\.gguf: "):
        opened(torn)
    with pytest.raises(Unsupported, match="no libllama is at"):
        opened(file, place=str(tmp_path))
    libc = next(each.path for each in psutil.Process().memory_maps() if "libc.so" in each.path)
    with pytest.raises(Unsupported, match="cannot be used: "):
        opened(file, place=libc)


def test_a_library_of_an_unknown_version_is_refused() -> None:
    library = llama_library.loaded("")

    class Other:
        llama_model_default_params = library.llama_model_default_params

        @staticmethod
        def llama_context_default_params() -> ctypes.Structure:
            params = library.llama_context_default_params()
            params.n_seq_max = 4
            return params

    with pytest.raises(Unsupported, match="structures are not known"):
        llama_library._require_layout(Other(), Path("libllama.so"))  # type: ignore[arg-type]


def test_a_window_that_slides_is_refused(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="mistral models with a sliding window"):
        gguf_weights.write(compressed(tiny("mistral"), None, rounded(16)), tmp_path / "model.gguf")


@pytest.mark.parametrize("family", ["llama", "qwen2", "smollm3", "seed_oss"])
def test_a_twin_tells_that_the_formula_is_llamas(tiny: Callable[[str], LoadedModel], family: str) -> None:
    require_formula(tiny(family), "")


@pytest.mark.parametrize("family", ["granite", "helium"])
def test_a_twin_tells_another_formula_under_the_same_names(tiny: Callable[[str], LoadedModel], family: str) -> None:
    """Granite scales its residuals, Helium rotates other pairs."""
    with pytest.raises(Unsupported, match=rf"computes {family} models otherwise than transformers"):
        require_formula(tiny(family), "")


def test_a_twin_has_the_layers_that_differ(tiny: Callable[[str], LoadedModel]) -> None:
    """Every fourth layer of SmolLM3 knows no positions, and no parameter tells."""
    model = tiny("smollm3").copy()
    config = model.module.config
    config.num_hidden_layers, config.no_rope_layers, config.layer_types = 4, [1, 1, 1, 0], ["full_attention"] * 4
    with pytest.raises(Unsupported, match="computes smollm3 models otherwise"):
        require_formula(model, "")


@pytest.mark.parametrize("rotary", [{"rope_type": "linear", "factor": 2.0}, LLAMA_3])
def test_scaled_positions_are_written(tiny: Callable[[str], LoadedModel], rotary: dict[str, object]) -> None:
    model = tiny("llama").copy()
    model.module.config.rope_parameters = {"rope_theta": 1e4, **rotary}
    require_formula(model, "")


def test_positions_of_another_kind_are_refused(tiny: Callable[[str], LoadedModel]) -> None:
    model = tiny("llama").copy()
    model.module.config.rope_parameters = {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}
    with pytest.raises(Unsupported, match="rotary positions of type dynamic"):
        require_formula(model, "")


@pytest.mark.parametrize("family", [name for name in SIZES if head_of(name) == "causal_lm"])
def test_every_decoder_answers_as_in_torch_or_is_refused_in_a_line(
    tiny: Callable[[str], LoadedModel], family: str, tmp_path: Path
) -> None:
    from objectives.runtime.in_torch.runner import TorchRunner

    model = compressed(tiny(family), None, rounded(32))
    try:
        runner = LlamaCpp().prepare(Hand(model, rounded(32), tmp_path))  # type: ignore[arg-type]
    except Unsupported:  # and no other error
        return
    wanted = TorchRunner(model).logits(torch.from_numpy(IDS)).float()
    found = runner.logits(torch.from_numpy(IDS))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


def test_after_a_pass_that_failed_the_cache_is_right_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama_model.Model(llama_library.loaded(""), file, llama_model.Settings(1, 32))
    texts = [row.astype(np.int32) for row in IDS]
    wanted = [np.arange(12, 20)] * ROWS
    right = model.logits(texts, wanted)
    monkeypatch.setattr(llama_model, "PASS", 25)
    real, passes = model._decode, list[int]()

    def fail_at_the_second(*arguments: object) -> None:
        passes.append(1)
        if len(passes) == 2:
            raise MemoryError("no room")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "_decode", fail_at_the_second)
    with pytest.raises(MemoryError):
        model.logits([text[::-1].copy() for text in texts], [np.arange(20)] * ROWS)
    assert np.allclose(model.logits(texts, wanted), right, atol=1e-4)
    model.generate(texts, 3, lambda _phase: None)
    assert np.allclose(model.logits(texts, wanted), right, atol=1e-4)


def test_more_rows_than_the_library_takes_are_refused(file: Path) -> None:
    engine = opened(file)
    with pytest.raises(Unsupported, match=r"at most \d+ sequences at a time, got 5000"):
        engine.generate(np.full((5000, 2), 3), np.zeros((5000, 1), np.int64), None, None)
    out = np.zeros((llama_model.MOST_ROWS, 1), np.int64)
    engine.generate(np.full((len(out), 2), 3), out, None, None)
    assert (out == out[0]).all()


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bert", "olmo", "qwen3"])
def test_models_of_another_type_are_refused(tiny: Callable[[str], LoadedModel], family: str, tmp_path: Path) -> None:
    model = compressed(tiny(family), None, rounded(16))
    with pytest.raises(Unsupported, match="models are not written here"):
        gguf_weights.write(model, tmp_path / "model.gguf")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("bits", [32, 16, 8])
def test_models_of_llama_type_answer_as_in_torch(
    tiny: Callable[[str], LoadedModel], family: str, bits: int, tmp_path: Path
) -> None:
    """Biases of queries and keys move with their rows."""
    from objectives.runtime.in_torch.runner import TorchRunner

    model = compressed(tiny(family), None, rounded(bits, scheme="weight_only"))
    model.module.config.sliding_window = None
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    gguf_weights.write(model, tmp_path / "model.gguf")
    wanted = TorchRunner(model).logits(torch.from_numpy(IDS)).float().numpy()
    engine = opened(tmp_path / "model.gguf")
    found, _ = run(engine, IDS, engine.start(ROWS), 0, list(range(TOKENS)))
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < {32: 1e-4, 16: 2e-2, 8: 3e-2}[bits]


def test_a_library_of_ones_own_is_named_by_the_environment_alone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A yaml or a winner of somebody else cannot choose what is loaded here."""
    with pytest.raises(ValueError, match="'wheel', 'fetched' or 'own'"):
        LlamaCpp(library=str(tmp_path))  # type: ignore[arg-type]
    monkeypatch.delenv(OWN, raising=False)
    assert "needs the environment variable PARETUNE_LIBLLAMA" in str(LlamaCpp(library="own").requirements())
    monkeypatch.setenv(OWN, str(tmp_path / "nowhere"))
    assert "nowhere" in str(LlamaCpp(library="own").requirements())
    wheel = llama_library.files_at("")[0]
    monkeypatch.setenv(OWN, str(wheel))
    own = LlamaCpp(library="own")
    assert own.requirements() is None
    assert own.versions()[wheel.name]
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    assert "run: paretune fetch llama-cpp" in str(LlamaCpp(library="fetched").requirements())
    assert LlamaCpp().requirements() is None


def test_a_folder_without_all_parts_of_the_library_is_none(tmp_path: Path) -> None:
    for name in ("libggml.so", "libllama.so", "libllama-common.so"):
        (tmp_path / name).touch()
    assert llama_library.files_at(str(tmp_path)) == []
    (tmp_path / "libggml-base.so").touch()
    (tmp_path / "libggml-cpu-zen4.so").touch()
    found = [each.name for each in llama_library.files_at(str(tmp_path))]
    assert found == ["libggml-base.so", "libggml.so", "libllama.so"]


def test_a_kernel_that_was_built_anew_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libllama loads it by itself; results of the one before must not be served."""
    seen = []
    for built in ("one", "two"):
        folder = tmp_path / built
        folder.mkdir()
        for name in ("libggml-base.so", "libggml.so", "libllama.so"):
            (folder / name).write_text(name)
        (folder / "libggml-cpu-zen4.so").write_text(built)
        monkeypatch.setenv(OWN, str(folder))
        seen.append(LlamaCpp(library="own").versions())
    assert seen[0].keys() == seen[1].keys()
    assert {name for name in seen[0] if seen[0][name] != seen[1][name]} == {"libggml-cpu-zen4.so"}


def of_wide_heads(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    """A model with heads of 32 channels, which a block of keys or values fills."""
    model = compressed(tiny("mistral"), None, rounded(16))
    model.module.config.sliding_window = None
    return model


def test_keys_and_values_in_fewer_bits_change_the_answer_a_little(
    tiny: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    model, found = of_wide_heads(tiny), {}
    for bits in (16, 8, 4):
        runner = LlamaCpp().prepare(Hand(model, rounded(16), tmp_path, kv_bits=bits))  # type: ignore[arg-type]
        found[bits] = runner.logits(torch.from_numpy(IDS))
    off = {bits: float((found[bits] - found[16]).norm() / found[16].norm()) for bits in (8, 4)}
    assert 1e-4 < off[8] < 0.03
    assert 2 * off[8] < off[4] < 0.3


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_the_bytes_of_a_token_are_those_that_the_engine_keeps(
    tiny: Callable[[str], LoadedModel], bits: int, tmp_path: Path
) -> None:
    """By the size of a sequence that the library would save: it adds a few numbers for each token."""
    model = of_wide_heads(tiny)
    gguf_weights.write(model, tmp_path / "model.gguf")
    library = llama_library.loaded("")
    size = library.llama_state_seq_get_size
    size.restype, size.argtypes = ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int32]
    engine = llama_model.Model(library, tmp_path / "model.gguf", llama_model.Settings(1, bits))
    sizes = []
    for tokens in (4, 20):
        engine.logits([IDS[0, :tokens].astype(np.int32)], [np.array([tokens - 1])])
        sizes.append(size(engine._context, 0))
    said = gguf_weights.key_values(model, bits)["kv_bytes_per_token"]
    assert 0 <= (sizes[1] - sizes[0]) / 16 - said <= 16
    if bits < 32:
        runner = LlamaCpp().prepare(Hand(model, rounded(16), tmp_path, kv_bits=bits))  # type: ignore[arg-type]
        assert runner.weights(1)["kv_bytes_per_token"] == said


def test_heads_that_no_block_fills_keep_16_bits(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = compressed(tiny("llama"), None, rounded(16))
    with pytest.raises(Unsupported, match=r"kv\.bits: llama\.cpp rounds 32 channels .* have 16 here: kv\.bits=16"):
        LlamaCpp().prepare(Hand(model, rounded(16), tmp_path, kv_bits=8))  # type: ignore[arg-type]


@pytest.mark.parametrize(("wide", "bits"), [(False, 8), (True, 32)])
def test_a_folder_of_an_earlier_version_opens_with_the_bits_that_it_had(
    tiny: Callable[[str], LoadedModel], wide: bool, bits: int, tmp_path: Path
) -> None:
    LlamaCpp().prepare(Hand(of_wide_heads(tiny), rounded(16), tmp_path))  # type: ignore[arg-type]
    file = next(tmp_path.glob("*/engine.json"))
    facts = json.loads(file.read_text())
    facts["settings"]["cache_bits"], facts["options"] = 8, {"wide": wide}
    file.write_text(json.dumps(facts))
    read = read_facts(file.parent)
    assert read.options["kv_bits"] == bits
    assert runtime_of(read) == LlamaCpp()
