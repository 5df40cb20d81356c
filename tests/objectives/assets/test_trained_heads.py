"""The models that are trained on the spot are folders that transformers opens, and as good as the docs say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from objectives import assets
from objectives.assets.asset import AssetError
from objectives.assets.minilm_languages import check as check_languages
from objectives.assets.minilm_languages import halves
from objectives.assets.minilm_quac import asked, labelled
from objectives.assets.minilm_quac import check as check_spans
from objectives.assets.t5_numbers import _new_model, _train_tokenizer, check, read_rows, share_right


def letters() -> Any:
    """Return a tokenizer that reads every character as a token: the question, a separator, and a window of the text."""
    known = {letter: number for number, letter in enumerate("#|abcdefghijklmnopqrstuvwxyz ?.")}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="#"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(pair="|:0 $A:0 |:0 $B:1", special_tokens=[("|", 1)])
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="#", pad_token="#", model_input_names=names)


TURN = {
    "context": "a dog and a cat ran. " * 30 + "the owl sat. " + "it was night. " * 10,
    "history": [{"question": "first?", "answer": "a cat"}, {"question": "who?", "answer": "a dog"}],
    "question": "who sat?",
    "answer": ["the owl", "owl"],
    "answer_start": [630, 634],
}


def test_a_question_follows_the_turn_before_it() -> None:
    assert asked(TURN) == "who? a dog who sat?"
    assert asked({**TURN, "history": []}) == "who sat?"


def test_windows_mark_the_answer_where_they_hold_it() -> None:
    tokenizer = letters()
    windows = list(labelled(tokenizer, [TURN] * 6))
    found = [
        "".join(
            tokenizer.convert_ids_to_tokens(
                window["input_ids"][window["start_positions"] : window["end_positions"] + 1]
            )
        )
        for window in windows
        if window["end_positions"]
    ]
    assert found
    assert set(found) == {"the owl"}
    assert any(not window["end_positions"] for window in windows)
    assert all(len(window["input_ids"]) <= 256 for window in windows)


def test_long_texts_are_read_in_halves_too() -> None:
    assert halves([("a b c d e f g", "de"), ("a b", "fr")]) == [("a b c", "de"), ("d e f g", "de")]


def test_a_classifier_that_learned_nothing_is_no_asset() -> None:
    rows = [{"input_ids": [1, 2], "labels": number % 2} for number in range(10)]

    class Constant(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
            return {"logits": torch.tensor([[1.0, 0.0]]).repeat(len(input_ids), 1)}

    with pytest.raises(AssetError, match=r"the trained classifier is wrong: accuracy 0\.500, expected"):
        check_languages(Constant(), rows)


def test_a_span_head_that_learned_nothing_is_no_asset() -> None:
    rows = list(labelled(letters(), [TURN] * 6))

    class Constant(torch.nn.Module):
        """Is as sure of every place, or of those that are right."""

        def __init__(self, sure: float) -> None:
            super().__init__()
            self.sure = sure

        def forward(
            self, input_ids: torch.Tensor, start_positions: torch.Tensor, end_positions: torch.Tensor, **_: Any
        ) -> Any:
            places = torch.arange(input_ids.shape[1])
            ends = {"start_logits": start_positions, "end_logits": end_positions}
            return {name: self.sure * (places == right[:, None]).float() for name, right in ends.items()}

    assert check_spans(Constant(9.0), rows) < 0.1
    with pytest.raises(AssetError, match=r"the trained span head is wrong: a loss of 5\.\d\d nats, expected 3"):
        check_spans(Constant(0.0), rows)


def test_a_number_is_read_digit_by_digit_and_every_text_comes_back() -> None:
    tokenizer = _train_tokenizer(["1987", "one thousand nine hundred eighty-seven", "€12.50", "$3"] * 9)
    assert tokenizer.encode("1987").tokens == ["1", "9", "8", "7", "</s>"]
    for text in ("one thousand", "€12.50", "naïve 不"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


def test_a_new_t5_writes_and_is_rarely_right() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_train_tokenizer(["1", "one"]), pad_token="<pad>")
    assert share_right(_new_model(512).eval(), tokenizer, [("1", "one"), ("2", "two")]) == 0


@pytest.mark.slow
def test_the_classifier_names_the_language_of_a_text() -> None:
    path = assets.locate("minilm-languages")
    model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32)
    texts = ["Die Datei ist leer.", "Le fichier est vide.", "Filen är tom.", "Файл пуст.", "文件是空的"]
    read = AutoTokenizer.from_pretrained(path)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        classes = model(**read).logits.argmax(-1)
    assert [model.config.id2label[int(each)] for each in classes] == ["de", "fr", "sv", "ru", "zh"]


@pytest.mark.slow
def test_the_t5_says_numbers_in_words() -> None:
    path = assets.locate("t5-numbers")
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    wanted = [
        ("1987", "one thousand nine hundred eighty-seven"),
        ("2026-11-29", "the twenty-ninth of november two thousand twenty-six"),
        ("-3.14", "minus three point one four"),
    ]
    assert share_right(model, tokenizer, wanted) == 1
    assert check(path, read_rows(assets.locate("numbers") / "test.tsv")[:200]) > 0.9
