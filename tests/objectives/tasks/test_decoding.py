"""Decoders and encoder-decoders write what transformers' own generate writes, greedily and by beams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from objectives.errors import Unsupported
from objectives.protocols.encoder_decoder import Opening
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.beams import BeamSearch, Search
from objectives.tasks.decoding import Ends, Write, greedy
from tests.objectives.conftest import Tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17], [18], [19, 20, 21, 22, 23]]
NEW = 12
FAMILIES = ("t5", "bart", "marian", "gpt2", "llama")
each_family = pytest.mark.parametrize("family", FAMILIES)


def eloquent(tiny: Tiny, family: str) -> TorchRunner:
    """A model in floats that heeds what it reads, repeats itself rarely, and ends now and then."""
    model = tiny(family).copy()
    model.module.float()
    model.module.get_input_embeddings().weight.mul_(12)
    generator = torch.Generator().manual_seed(5)
    head = torch.randn(model.module.lm_head.weight.shape, generator=generator) / 4
    model.module.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    return TorchRunner(model)


def generated(runner: TorchRunner, prompt: list[int], **asked: Any) -> list[int]:
    """By another way: transformers' own, one prompt at a time, with what ends it."""
    ids = torch.tensor([prompt])
    out = runner.module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, pad_token_id=1, **asked
    )[0].tolist()
    return list(out[1:] if runner.head == "seq2seq" else out[len(prompt) :])


@torch.inference_mode()
def found(runner: TorchRunner, write: Write, end: int, prompts: list[list[int]] = PROMPTS) -> list[list[int] | None]:
    return write(runner, prompts, NEW, Ends(frozenset({end})))


def end_of(runner: TorchRunner) -> int:
    """A token that is written early in some texts and late, or never, in others."""
    texts = [generated(runner, prompt, eos_token_id=127) for prompt in PROMPTS]
    places = {token: [text.index(token) for text in texts if token in text] for text in texts for token in text}
    return next(token for token, where in places.items() if max(where) > 0 and len(set(where)) + (len(where) < 5) > 1)


@each_family
def test_greedy_texts_are_those_of_transformers(tiny: Tiny, family: str) -> None:
    runner = eloquent(tiny, family)
    end = end_of(runner)
    wanted = [generated(runner, prompt, eos_token_id=end) for prompt in PROMPTS]
    assert found(runner, greedy, end) == wanted
    assert len({len(text) for text in wanted}) > 1
    assert len({tuple(text[:3]) for text in wanted}) > 2


@pytest.mark.parametrize(
    ("family", "beams", "penalty"),
    [pytest.param(family, *asked, marks=[] if family == "t5" or asked == (4, 0.0) else [pytest.mark.slow])
     for family in FAMILIES for asked in ((2, 1.0), (4, 1.0), (4, 0.0), (4, 2.5), (3, -1.0))],
)  # fmt: skip
def test_beams_find_what_those_of_transformers_find(tiny: Tiny, family: str, beams: int, penalty: float) -> None:
    runner = eloquent(tiny, family)
    end = end_of(runner)
    wanted = [
        generated(runner, prompt, eos_token_id=end, num_beams=beams, length_penalty=penalty) for prompt in PROMPTS
    ]
    assert found(runner, BeamSearch(beams, penalty), end) == wanted


@each_family
def test_beams_find_other_texts_than_greedy_ones(tiny: Tiny, family: str) -> None:
    runner = eloquent(tiny, family)
    end = end_of(runner)
    assert found(runner, BeamSearch(4), end) != found(runner, greedy, end)


def test_beams_of_one_prompt_do_not_depend_on_the_others(tiny: Tiny) -> None:
    runner = eloquent(tiny, "t5")
    end = end_of(runner)
    alone = [found(runner, BeamSearch(4), end, [prompt])[0] for prompt in PROMPTS]
    assert found(runner, BeamSearch(4), end) == alone


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (4, 1.0), (4, 0.5), (4, 2.0), (3, -1.0), (2, 4.0)])
def test_what_a_checkpoint_forces_and_forbids_is_heeded(tiny: Tiny, beams: int, penalty: float) -> None:
    runner = eloquent(tiny, "bart")
    end = end_of(runner)
    plain = generated(runner, PROMPTS[0], eos_token_id=127)
    forbidden = sorted({plain[2], plain[4]} - {end})
    settings = runner.module.generation_config
    settings.forced_bos_token_id, settings.bad_words_ids = 9, [[token] for token in forbidden]
    assert runner.opening == Opening((0, 9), tuple(forbidden))
    asked = {"eos_token_id": end, "num_beams": beams, **({} if beams == 1 else {"length_penalty": penalty})}
    wanted = [generated(runner, prompt, **asked) for prompt in PROMPTS]
    assert {text[0] for text in wanted} == {9}
    write = greedy if beams == 1 else BeamSearch(beams, penalty)
    with torch.inference_mode():
        texts = write(runner, PROMPTS, NEW - 1, Ends(frozenset({end})))
    assert texts == [text[1:] for text in wanted]


def test_a_row_that_is_not_finite_has_no_text_and_the_others_have_theirs(tiny: Tiny) -> None:
    runner = eloquent(tiny, "t5")
    wanted = found(runner, BeamSearch(2), 127)
    step = runner.step

    def broken(ids: torch.Tensor, cache: Any) -> Any:
        logits, cache = step(ids, cache)
        if len(ids) == 10:
            logits[2] = torch.nan
        return logits, cache

    runner.step = broken  # type: ignore[method-assign]
    assert found(runner, BeamSearch(2), 127) == [wanted[0], None, *wanted[2:]]


def test_a_stop_text_ends_a_beam(tiny: Tiny) -> None:
    runner = eloquent(tiny, "gpt2")
    search = BeamSearch(3)
    with torch.inference_mode():
        (whole,) = search(runner, PROMPTS[:1], NEW, Ends(frozenset()))
        assert whole is not None
        stop = runner.tokenizer.decode(whole[3:5])
        (cut,) = search(runner, PROMPTS[:1], NEW, Ends(frozenset(), (stop,)))
    text = runner.tokenizer.decode(cut)
    assert stop not in text[:-1]
    assert len(cut) == NEW or text.endswith(stop)


def tokenizer_with(vocabulary: list[str], decoder: Any) -> Any:
    ids = {token: place for place, token in enumerate(["<unk>", "</s>", *vocabulary])}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "bytes": tokenizer_with(
        ["a", "b", "ab", "\u010a", "\u0120", "\u0120" * 40, "\u00e4", "\u00bb", "\u012c", "."], decoders.ByteLevel()
    ),
    "metaspace": tokenizer_with(["a", "b", "▁a", "▁", "▁▁", "<0xE4>", "<0xBB>", "<0x8A>", ".", "\n"], decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )),
    "wordpiece": tokenizer_with(["a", "b", "##a", "##b", ".", "##n't", "n't", "今"], decoders.WordPiece(cleanup=True)),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    ids=st.lists(st.integers(1, 11), min_size=1, max_size=9),
    filler=st.sampled_from([1, 2, 3, 4]),
    length=st.integers(0, 70),
    cut=st.integers(1, 12),
)
def test_a_stop_text_is_found_when_it_is_complete_though_only_the_end_is_decoded(
    kind: str, ids: list[int], filler: int, length: int, cut: int
) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = [each % len(tokenizer) for each in [*ids, *[filler] * length, *ids]]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    for stop in filter(None, (text[-cut:], text[-cut:-1], text[-cut:] + "a", "b" + text[-cut:])):
        is_old = stop in tokenizer.decode(ids[:-1], skip_special_tokens=True)
        assert is_old or Ends(frozenset(), (stop,)).is_new(tokenizer, ids) == (stop in text)


@pytest.mark.parametrize(
    ("kind", "tokens", "stop", "is_there"),
    [
        ("bytes", ["b", "a", "a", *["</s>"] * 60, "b"], "aab", True),  # tokens without a text lie between
        ("bytes", ["b", "a", *["</s>"] * 60, "\u0120" * 40], "a ", True),  # the last token alone is long enough
        ("bytes", [*["b"] * 60, *["\u00e4", "\u00bb", "\u012c"] * 2, "a"], "\u4eca\u4ecaa", True),
        ("bytes", ["a", *["\u00e4", "\u00bb", "\u012c"] * 30], "\ufffd", False),  # a part begins within a letter
        ("metaspace", ["a", *["<0xE4>", "<0xBB>", "<0x8A>"] * 30], "\ufffd", False),
        ("metaspace", [*["b"] * 60, "▁a"], "b a", True),
        ("wordpiece", ["a", *["##b"] * 60], "##b", False),  # a part begins within a word
        ("wordpiece", ["b", *["##b"] * 60, "n't"], "bn't", True),  # a space goes
    ],
)
def test_the_end_of_a_text_is_taken_for_no_more_and_no_less_than_it_is(
    kind: str, tokens: list[str], stop: str, is_there: bool
) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    assert (stop in tokenizer.decode(ids, skip_special_tokens=True)) == is_there
    assert Ends(frozenset(), (stop,)).is_new(tokenizer, ids) == is_there


def test_a_long_text_is_not_decoded_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, seen = TOKENIZERS["bytes"], []
    plain = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids, **how: seen.append(len(ids)) or plain(ids, **how))
    assert not Ends(frozenset(), ("ba\n",)).is_new(tokenizer, [2] * 500)
    assert max(seen) < 50


def test_what_is_written_does_not_depend_on_whether_a_runner_selects_rows(tiny: Tiny) -> None:
    runner = eloquent(tiny, "gpt2")
    stop = runner.tokenizer.decode(generated(runner, PROMPTS[1], eos_token_id=127)[3:5])
    ends = Ends(frozenset({end_of(runner)}), (stop,))
    with torch.inference_mode():
        selecting = greedy(runner, PROMPTS, NEW, ends)
        runner.select = lambda _cache, _rows: None  # type: ignore[method-assign]
        assert greedy(runner, PROMPTS, NEW, ends) == selecting
    assert len({len(text or ()) for text in selecting}) > 1


def test_a_runner_that_cannot_exchange_rows_says_so(tiny: Tiny) -> None:
    runner = eloquent(tiny, "gpt2")
    runner.select = lambda _cache, _rows: None  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match=r"task\.beams: this runtime cannot exchange the rows of its cache"):
        found(runner, BeamSearch(2), 127)


def test_a_search_ends_when_nothing_can_overtake() -> None:
    search = Search(2, 1.0, 0)
    assert search.advance([(-0.1, 0, 5), (-3.0, 0, 6), (-4.0, 0, 7), (-9.0, 0, 8)], [True, False, False, False]) == [
        0,
        0,
    ]
    assert search.is_open  # one text is kept, two are asked for
    search.advance([(-3.1, 0, 5), (-4.2, 1, 6), (-8.0, 0, 7), (-9.0, 1, 8)], [True, False, False, False])
    assert [beam.ids for beam in search.kept] == [(5,), (6, 5)]
    assert not search.is_open  # -4.2 / 2 is behind -3.1 / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_tokens_that_are_never_written_are_found_in_any_width(dtype: torch.dtype) -> None:
    """58100 has no number of its own in bfloat16."""
    from types import SimpleNamespace

    from objectives.protocols.encoder_decoder import Opening
    from objectives.tasks.decoding import allowed

    told = SimpleNamespace(opening=Opening((0,), (58100,)), read=len, begin=len)
    scores = allowed(told, torch.zeros(2, 58101, dtype=dtype))  # type: ignore[arg-type]
    assert scores.isinf().nonzero()[:, 1].tolist() == [58100, 58100]
