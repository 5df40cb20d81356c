"""A model's answers are those of transformers' own generate, whoever runs beside them; each ends where it should."""

from __future__ import annotations

import copy
import json
import math
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pydantic
import pytest
import sacrebleu
import torch
from tokenizers.processors import TemplateProcessing

from objectives.errors import DataError
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks import prompting
from objectives.tasks.decoding import Ends, continuations
from objectives.tasks.generation import Generation
from objectives.tasks.paired import is_resampled
from objectives.tasks.several import Several
from tests.objectives.conftest import Tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17], [18], [19, 20, 21, 22, 23]]
LEAST = 12


@pytest.fixture(params=["llama", "gpt2"])
def decoder(tiny: Tiny, request: Any) -> TorchRunner:
    model = tiny(request.param).copy()
    model.module.float()
    return TorchRunner(model)


def alone(decoder: TorchRunner, prompt: list[int], new_tokens: int = LEAST) -> list[int]:
    """By another way: transformers' own, one prompt at a time, and no token ends it."""
    ids = torch.tensor([prompt])
    out = decoder.module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False
    )
    written: list[int] = out[0, len(prompt) :].tolist()
    return written


def test_answers_do_not_depend_on_who_runs_beside_them(decoder: TorchRunner) -> None:
    wanted = [decoder.tokenizer.decode(alone(decoder, prompt)) for prompt in PROMPTS]
    for rows in (1, 2, 5):
        assert continuations(decoder, PROMPTS, LEAST, Ends(frozenset()), rows) == wanted


def test_a_row_ends_at_its_own_end_and_the_others_go_on(decoder: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [alone(decoder, prompt) for prompt in PROMPTS]
    tokens = dict.fromkeys(chain.from_iterable(texts))
    places = {token: [text.index(token) if token in text else LEAST for text in texts] for token in tokens}
    end = next(token for token, first in places.items() if 0 < min(first) < max(first))
    sizes: list[int] = []
    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda ids, cache: sizes.append(len(ids)) or step(ids, cache))
    found = continuations(decoder, PROMPTS, LEAST, Ends(frozenset({end})), 5)
    for text, answer in zip(texts, found):
        kept = text[: text.index(end)] if end in text else text
        assert answer == decoder.tokenizer.decode(kept, skip_special_tokens=True)
    assert sizes[0] == 5
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 5  # it ran without the row that was finished


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(decoder: TorchRunner) -> None:
    (whole,) = continuations(decoder, PROMPTS[:1], LEAST, Ends(frozenset()), 1)
    assert whole is not None
    stop = whole[6:9]
    (cut,) = continuations(decoder, PROMPTS[:1], LEAST, Ends(frozenset(), (stop,)), 1)
    assert cut == whole[: whole.find(stop)]


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def data(decoder: TorchRunner, tmp_path: Path) -> str:
    """Questions of which the model answers the first and the third as it should."""
    texts = ["one question", "another", "the third one"]
    rows = []
    for place, text in enumerate(texts):
        written = decoder.tokenizer.decode(alone(decoder, decoder.tokenizer(text)["input_ids"], 6)).strip()
        rows.append({"text": text, "target": ["no", written] if place != 1 else "something else"})
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", [{"text": f"calibrates {number}", "target": "so"} for number in range(3)])
    return str(tmp_path)


def task(data: str, **settings: Any) -> Generation:
    usual = {"new_tokens": 6, "tokens": 40, "batch_rows": 2}
    return Generation(data=f"{data}/a.jsonl", calibration=f"{data}/b.jsonl", **{**usual, **settings})


@pytest.mark.parametrize("decoder", ["llama"], indirect=True)  # the other writes spaces alone
def test_an_example_is_the_best_rating_of_its_answer(decoder: TorchRunner, data: str) -> None:
    score = task(data).evaluate(decoder)
    assert score.examples == (1.0, 0.0, 1.0)
    assert score.ids == ("a.jsonl, line 1", "a.jsonl, line 2", "a.jsonl, line 3")
    parts = list(task(data).parts(decoder, [2, 1]))
    assert [part.examples for part in parts] == [(1.0, 0.0)]


@pytest.mark.parametrize("decoder", ["llama"], indirect=True)  # the other writes spaces alone
@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_a_metric_of_the_corpus_is_that_of_sacrebleu_and_comes_in_one_part(
    decoder: TorchRunner, data: str, metric: str
) -> None:
    made = task(data, metric=metric, bleu_tokenize="char")
    requests = made._requests(made.divided().scored)
    answers = [answer or "" for answer in made.answers(decoder, requests)]
    references = list(zip_longest(*(each.accepted for each in requests)))
    corpus: Any = {"bleu": sacrebleu.BLEU(tokenize="char"), "chrf": sacrebleu.CHRF()}[metric]
    score = made.evaluate(decoder)
    assert score.accuracy == pytest.approx(corpus.corpus_score(answers, references).score / 100, abs=1e-6)
    assert 0 < score.accuracy < 1
    assert is_resampled(score)
    assert list(made.parts(decoder, range(3))) == [score]
    (part,) = made.parts(decoder, [2, 1])
    assert part.examples == (score.examples[2], score.examples[1])
    assert part.ids == ("a.jsonl, line 3", "a.jsonl, line 2")


def test_a_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="'rougeL', 'bleu' or 'chrf'"):
        Generation(data="a.jsonl", metric="blue")


def test_a_chat_template_is_used_where_there_is_one(decoder: TorchRunner, data: str) -> None:
    with pytest.raises(DataError, match=r"task\.chat: this tokenizer has no chat template"):
        task(data, chat=True).evaluate(decoder)
    decoder.tokenizer.chat_template = "{% for m in messages %}[{{m.role}}] {{m.content}}{% endfor %}>"
    try:
        made = task(data)
        (request, *_) = made._requests(made.divided().scored)
        ids = made._prompt(decoder, request)
        assert "".join(decoder.tokenizer.convert_ids_to_tokens(ids)) == "[user] one question>"
        plainly = task(data, chat=False)._prompt(decoder, request)
        assert "".join(decoder.tokenizer.convert_ids_to_tokens(plainly)) == "one question"
    finally:
        decoder.tokenizer.chat_template = None


def test_long_prompts_lose_their_beginning_and_are_counted(decoder: TorchRunner, data: str) -> None:
    short = task(data, tokens=14)
    assert list(short.excerpts(decoder.model).remarks) == [
        "task.tokens: 2 of 3 prompts are cut at their beginning to 8 tokens",
        "task.tokens: 3 of 3 calibration rows are cut at their beginning to 14 tokens",
    ]
    assert not task(data).excerpts(decoder.model).remarks
    assert all(len(short._prompt(decoder, each)) <= 8 for each in short._requests(short.divided().scored))


def test_calibration_rows_are_prompts_with_their_answers(decoder: TorchRunner, data: str) -> None:
    (batches,) = task(data).calibration(decoder.model).values()
    texts = ["".join(decoder.tokenizer.convert_ids_to_tokens(row)) for batch in batches for row in batch]
    assert sorted(texts) == [f"calibrates {number}so" for number in range(3)]


def test_a_hopeless_model_has_a_score_that_says_so(decoder: TorchRunner, data: str) -> None:
    for parameter in decoder.module.parameters():
        parameter.fill_(math.nan)
    assert math.isnan(task(data).evaluate(decoder).accuracy)


@pytest.mark.parametrize(("new_tokens", "least", "is_refused"), [(9, 0.9, True), (10, 0.9, False), (9, 0.8, False)])
def test_a_band_that_no_answer_can_reach_is_refused(
    decoder: TorchRunner, tmp_path: Path, new_tokens: int, least: float, is_refused: bool
) -> None:
    """The references have 11 tokens on average, so all that is written may have 9.9 for a band that begins at 0.9."""
    rows = [{"text": "a question", "target": "b" * length} for length in (8, 14)]
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", [{"text": "calibrates", "target": "so"}])
    made = task(str(tmp_path), new_tokens=new_tokens, length_band=(least, 1.1))
    if not is_refused:
        made.excerpts(decoder.model)
        return
    words = r"^task\.new_tokens: 9 are too few for task\.length_band, .* 0\.9 of the references' 11 tokens .* has 14$"
    with pytest.raises(DataError, match=words):
        made.excerpts(decoder.model)
    both = Several(tasks={"quiz": made, "news": task(str(tmp_path))})
    with pytest.raises(DataError, match=r"^tasks\.quiz\.new_tokens: 9 are too few for tasks\.quiz\.length_band"):
        both.excerpts(decoder.model)


def test_an_answer_needs_room_beside_its_prompt() -> None:
    with pytest.raises(pydantic.ValidationError, match="new_tokens must be < tokens=8, got 8"):
        Generation(data="a.jsonl", tokens=8, new_tokens=8)


# ---- encoder-decoders


@pytest.fixture
def translator(tiny: Tiny) -> TorchRunner:
    """A T5 whose tokenizer puts an end behind a source, as theirs do."""
    model = tiny("t5").copy()
    model.module.float()
    model.tokenizer = copy.deepcopy(model.tokenizer)
    processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    model.tokenizer.backend_tokenizer.post_processor = processor
    return TorchRunner(model)


def test_an_encoder_decoder_reads_the_prompt_and_is_rated_by_what_it_writes(
    translator: TorchRunner, data: str, tmp_path: Path
) -> None:
    made = task(data, head="seq2seq", new_tokens=5)
    rows = []
    for request in made._requests(made.divided().scored):
        ids = torch.tensor([translator.tokenizer(request.prompt)["input_ids"]])
        assert ids[0, -1] == 0
        out = translator.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        answer = translator.tokenizer.decode(out[0], skip_special_tokens=True)
        rows.append({"text": request.prompt, "target": answer.strip()})
    data = write(tmp_path / "known.jsonl", rows)
    known = Generation(data=data, calibration=str(tmp_path / "b.jsonl"), head="seq2seq", new_tokens=5, tokens=40)
    assert known.evaluate(translator).examples == (1.0, 1.0, 1.0)


def test_a_long_source_loses_its_end_and_keeps_the_end_token(translator: TorchRunner, data: str) -> None:
    short = task(data, head="seq2seq", tokens=8, new_tokens=20)
    (request, *_) = short._requests(short.divided().scored)
    ids = short._prompt(translator, request)
    assert "".join(translator.tokenizer.convert_ids_to_tokens(ids)) == "one que<end>"
    assert list(short.excerpts(translator.model).remarks) == [
        "task.tokens: 2 of 3 prompts are cut at their end to 8 tokens",
        "task.tokens: 3 of 3 calibration sources are cut at their end to 8 tokens",
    ]
    brief = task(data, head="seq2seq", new_tokens=1).excerpts(translator.model)
    assert list(brief.remarks) == ["task.new_tokens: 3 of 3 calibration targets are cut at their end to 1 tokens"]
    assert [(span.side, span.tokens) for span in short.spans] == [("encoder", 8), ("decoder", 20)]


def test_an_encoder_decoder_calibrates_with_what_it_is_to_write(translator: TorchRunner, data: str) -> None:
    (batches,) = task(data, head="seq2seq").calibration(translator.model).values()
    pairs = [
        ["".join(translator.tokenizer.convert_ids_to_tokens(ids[0])) for ids in (row.ids, row.targets)]
        for batch in batches for row in batch
    ]  # fmt: skip
    assert sorted(source for source, _ in pairs) == [f"calibrates {number}<end>" for number in range(3)]
    assert all(target and not target.startswith("calibrates") for _, target in pairs)
    inputs = translator.model.inputs(batches[0])
    start = translator.module.config.decoder_start_token_id
    assert inputs["decoder_input_ids"][:, 0].tolist() == [start] * len(batches[0])
    assert torch.equal(inputs["decoder_input_ids"][:, 1:], batches[0].targets[:, :-1])


def test_beams_are_a_setting(decoder: TorchRunner, data: str) -> None:
    made = task(data, beams=3, length_penalty=0.5)
    requests = made._requests(made.divided().scored)
    ids = torch.tensor([made._prompt(decoder, requests[0])])
    out = decoder.module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, num_beams=3, length_penalty=0.5
    )
    wanted = decoder.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert made.answers(decoder, requests)[0] == wanted


def test_a_row_without_accepted_answers_is_told(tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("".join(json.dumps({"text": f"say {n}", "target": [] if n == 3 else "x"}) + "\n" for n in range(6)))
    with pytest.raises(DataError, match=r"task\.target: 1 of 6 rows are wrong: .*has no answer"):
        Generation(data=str(file)).require_documents()


def test_the_models_own_end_tokens_end_an_answer(decoder: TorchRunner, data: str) -> None:
    made = task(data)
    requests = made._requests(made.divided().scored)
    whole = [answer or "" for answer in made.answers(decoder, requests)]
    longest = max(whole, key=len)
    first = decoder.tokenizer(longest, add_special_tokens=False)["input_ids"]
    kept = decoder.module.generation_config.eos_token_id
    try:
        decoder.module.generation_config.eos_token_id = [kept, first[-1]]
        assert first[-1] in decoder.end_tokens
        assert len(made.answers(decoder, requests)[whole.index(longest)] or "") < len(longest)
    finally:
        decoder.module.generation_config.eos_token_id = kept


def test_a_prompt_without_tokens_is_refused_with_its_place(
    decoder: TorchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x", "target": "y"}\n{"text": "z", "target": "y"}\n')
    task = Generation(data=str(file))
    monkeypatch.setattr(prompting, "prompt_ids", lambda *_: [])  # as tokenizers do that know no such character
    with pytest.raises(DataError, match=r"task\.text: a\.jsonl, line \d has the prompt '.', which has no tokens"):
        task.calibration(decoder.model)


def test_answers_that_are_lists_written_as_text_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"q {number}", "target": '["a", "b"]' if number == 5 else "a"} for number in range(6)]
    for name, some in (("a", rows), ("b", [{"text": "held", "target": "a"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    task = Generation(data=str(tmp_path / "a.jsonl"), calibration=str(tmp_path / "b.jsonl"))
    said = 'task.target: 1 of 6 answers are lists written as text, as ["a", "b"]; each is one answer here'
    assert [line.startswith(said) for line in task.remarks()] == [True]
    assert not Generation(
        data=str(tmp_path / "a.jsonl"), calibration=str(tmp_path / "b.jsonl"), doc_to_target="{{target}}"
    ).remarks()  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("doc_to_text", "Q: {{text}}\\nA:", True), ("stop", ("\\n",), True),
        ("doc_to_text", "{{text.split('\\n')[0]}}", False), ("stop", ("\n",), False),
    ],
)  # fmt: skip
def test_a_backslash_that_is_no_line_break_is_told(tmp_path: Path, setting: str, value: Any, told: bool) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"q {name}", "target": "a"}))
    data = {"data": str(tmp_path / "a.jsonl"), "calibration": str(tmp_path / "b.jsonl")}
    lines = Generation(**{**data, setting: value}).remarks()
    assert len(lines) == told
    assert not told or lines[0].startswith(f"task.{setting}: holds a backslash and an n, no line break; double quotes")
