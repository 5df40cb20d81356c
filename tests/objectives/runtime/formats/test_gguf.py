"""GGUF with a tokenizer: llama.cpp splits texts as the tokenizer does, or the file is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM

from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.models.canonical import canonicalize_
from objectives.runtime.formats import gguf
from objectives.runtime.formats.gguf_vocabulary import PATTERNS, Limit, Vocabulary, vocabulary_of
from tests.objectives.runtimes import compressed, rounded
from tests.objectives.tokenizers import as_once_stored, by_bytes, by_pieces, fast


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return by_pieces(tmp_path_factory.mktemp("pieces") / "tokenizer")


def llama(tokenizer: Any, spare: int = 0) -> LoadedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    module = LlamaForCausalLM(config).to(torch.bfloat16).eval().requires_grad_(False)
    return canonicalize_(LoadedModel(module, tokenizer, "causal_lm"))


def header(vocabulary: Vocabulary, file: Path) -> Path:
    """A file that has nothing but what its tokenizer takes."""
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    vocabulary.add_to(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def compare(tokenizer: Any, file: Path, **changes: object) -> Vocabulary:
    vocabulary: Vocabulary = replace(vocabulary_of(tokenizer, len(tokenizer)), **changes)  # type: ignore[arg-type]
    gguf.require_equal_tokens(tokenizer, vocabulary, header(vocabulary, file), gguf.library())
    return vocabulary


@pytest.mark.parametrize("pattern", ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "qwen35"])
def test_texts_have_the_same_tokens_in_llama_cpp(pattern: str, tmp_path: Path) -> None:
    vocabulary = compare(by_bytes(pattern), tmp_path / "a.gguf")
    assert (vocabulary.kind, vocabulary.pattern, vocabulary.limits) == ("gpt2", pattern, [])


def test_another_pattern_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"llama\.cpp splits '.+' otherwise than this tokenizer, from token \d+"):
        compare(by_bytes("smollm"), tmp_path / "a.gguf", pattern="gpt-2")
    with pytest.raises(Unsupported, match=r"llama\.cpp splits"):
        compare(by_bytes("llama-bpe"), tmp_path / "b.gguf", pattern="qwen2")


def test_a_pattern_that_the_library_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="unknown pre-tokenizer type: 'of tomorrow'"):
        compare(by_bytes("gpt-2"), tmp_path / "a.gguf", pattern="of tomorrow")


def test_what_composes_characters_is_compared_on_composed_texts(tmp_path: Path) -> None:
    tokenizer = by_bytes("qwen2", composed=True)
    assert compare(tokenizer, tmp_path / "a.gguf").limits == [Limit.COMPOSED]
    with pytest.raises(Unsupported, match=r"llama\.cpp splits"):
        compare(tokenizer, tmp_path / "b.gguf", limits=[])


def test_pieces_have_scores_by_their_merges_and_bytes_for_what_is_unknown(pieces: Any, tmp_path: Path) -> None:
    vocabulary = compare(as_once_stored(pieces), tmp_path / "a.gguf")
    assert (vocabulary.kind, vocabulary.limits) == ("llama", [])
    assert vocabulary.adds["space"]
    with pytest.raises(Unsupported, match=r"llama\.cpp splits"):
        compare(as_once_stored(pieces), tmp_path / "b.gguf", scores=list(reversed(vocabulary.scores)))


def test_where_spaces_are_added_otherwise_it_is_said(tmp_path: Path) -> None:
    pieces = by_pieces(tmp_path / "pieces")
    vocabulary = compare(pieces, tmp_path / "a.gguf")
    assert vocabulary.limits == [Limit.LEADING_SPACE, Limit.AFTER_SPECIAL]
    with pytest.raises(Unsupported, match=r"llama\.cpp splits '  leading"):
        compare(pieces, tmp_path / "b.gguf", limits=[])


def test_first_and_last_tokens_of_texts_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = by_bytes("gpt-2")
    assert compare(tokenizer, tmp_path / "a.gguf").adds == {"bos": False, "eos": False, "space": False}
    frame = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|end|>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", None, frame[:1])
    assert compare(tokenizer, tmp_path / "b.gguf").adds["bos"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A <|end|>", None, frame)
    assert compare(tokenizer, tmp_path / "c.gguf").adds == {"bos": True, "eos": True, "space": False}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<|end|> $A", None, frame[1:])
    with pytest.raises(Unsupported, match="frames texts otherwise"):
        vocabulary_of(tokenizer, len(tokenizer))


def test_a_model_and_its_tokenizer_are_one_file(tmp_path: Path) -> None:
    tokenizer = by_bytes("smollm")
    model = compressed(llama(tokenizer, spare=3), None, rounded(16))
    sizes = gguf.write(model, tokenizer, tmp_path)
    reader = GGUFReader(tmp_path / gguf.FILE)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert len(tokens) == len(tokenizer) + 3
    assert reader.fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert sizes["model.embed_tokens"] == len(tokens) * 64 * 2


def test_a_file_that_would_be_read_otherwise_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = by_bytes("smollm")
    monkeypatch.setitem(PATTERNS, next(kind for kind, name in PATTERNS.items() if name == "smollm"), "gpt-2")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match=r"llama\.cpp splits"):
        gguf.write(compressed(llama(tokenizer), None, rounded(16)), tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


def test_tokenizers_that_llama_cpp_has_no_name_for_are_refused(tiny: Callable[[str], LoadedModel]) -> None:
    unknown = by_bytes("gpt-2")
    unknown.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(Unsupported, match="known here are gpt-2, smollm"):
        vocabulary_of(unknown, len(unknown))
    with pytest.raises(Unsupported, match="known here are gpt-2, smollm"):
        vocabulary_of(tiny("llama").tokenizer, 128)
    words = fast(Tokenizer(models.WordLevel({"<|begin|>": 0, "<|end|>": 1, "a": 2}, unk_token="a")))
    with pytest.raises(Unsupported, match="this one is WordLevel"):
        vocabulary_of(words, 3)
    with pytest.raises(Unsupported, match="ids up to 600, the model 600 of them"):
        vocabulary_of(by_bytes("gpt-2"), 600)


def test_without_any_build_of_llama_cpp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "files_at", lambda _place: [])
    with pytest.raises(Unsupported, match="pip install xllamacpp, or paretune fetch llama-cpp"):
        gguf.library()
