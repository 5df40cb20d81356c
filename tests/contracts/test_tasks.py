"""Scores are what their definition says, on examples that calibration never saw."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pydantic
import pytest
import torch
from torch import Tensor

from objectives.errors import ModelError
from objectives.models import Checkpoint, LoadedModel
from objectives.protocols.corpus import Document
from objectives.runtime.in_torch.runner import TorchRunner
from objectives.tasks.answers import scored
from objectives.tasks.domains import Domains
from objectives.tasks.embedding import embed
from objectives.tasks.language_modeling import LanguageModeling
from objectives.tasks.partial_scores import standard_error, unique
from objectives.tasks.progress import followed
from objectives.tasks.resampling import replicates_by
from objectives.tasks.retrieval import Retrieval
from objectives.types import Score
from tests.objectives.conftest import Tiny
from tests.objectives.recipes import CONF


@dataclass(frozen=True)
class ArtifactStore:
    """A corpus at hand."""

    held: tuple[Document, ...] = field(default=())

    def documents(self) -> tuple[Document, ...]:
        return self.held


def text_of(seed: int, length: int) -> str:
    letters = np.random.default_rng(seed).choice(list("abcdefghij klmno."), length)
    return "".join(letters)


def artifacts(lengths: list[int], summaries: bool = False) -> ArtifactStore:
    return ArtifactStore(
        tuple(
            Document(f"d{i}", text_of(i, length), text_of(1000 + i, 6) if summaries else None)
            for i, length in enumerate(lengths)
        )
    )


# ---- language modelling


def modeling(corpus: ArtifactStore, **settings: Any) -> LanguageModeling:
    settings = {"documents": 5, "tokens": 12, "calibration_documents": 3, "batch_rows": 2, **settings}
    return LanguageModeling(corpus=corpus, **settings)


def rows_scored(model: LoadedModel, task: LanguageModeling) -> Tensor:
    """Token ids that reached the model while it was scored."""
    watched, seen = model.copy(), []
    forward = watched.module.forward
    watched.module.forward = lambda **kwargs: seen.append(kwargs["input_ids"]) or forward(**kwargs)
    task.evaluate(TorchRunner(watched))
    return torch.cat(seen)


def test_calibration_and_scored_rows_are_different_documents(tiny: Tiny) -> None:
    corpus = artifacts([20, 5, 20, 12, 11, 30, 20, 20, 4, 20, 20])  # 8 are long enough: just as many as asked for
    task = modeling(corpus)
    calibrating = torch.cat(list(task.calibration(tiny("llama"))["task"]))
    scored = rows_scored(tiny("llama"), task)
    assert calibrating.shape == (3, 12)
    assert scored.shape == (5, 12)
    long_enough = [document for document in corpus.held if len(document.text) >= 12]
    wanted = tiny("llama").tokenizer([document.text[:12] for document in long_enough]).input_ids
    assert calibrating.tolist() == wanted[:3]
    assert sorted(scored.tolist()) == sorted(wanted[3:])


def test_calibration_batches_are_rectangular_token_ids(tiny: Tiny) -> None:
    batches = modeling(artifacts([20] * 9), calibration_documents=4, batch_rows=3).calibration(tiny("llama"))["task"]
    assert [tuple(batch.shape) for batch in batches] == [(3, 12), (1, 12)]
    assert {batch.dtype for batch in batches} == {torch.int64}


def naive_scores(model: LoadedModel, rows: Tensor) -> tuple[list[float], list[float]]:
    """Per row, in plain Python over fp64 log-probabilities: share of hits, mean negative log-likelihood."""
    hits, losses = [], []
    for row in rows:
        logits = model.module(input_ids=row[None]).logits[0].double()
        chances = torch.log_softmax(logits, dim=-1)
        asked = list(enumerate(row[1:].tolist()))
        hits.append(sum(float(int(chances[at].argmax()) == token) for at, token in asked) / len(asked))
        losses.append(-sum(chances[at, token].item() for at, token in asked) / len(asked))
    return hits, losses


@pytest.fixture
def fp32(tiny: Tiny) -> TorchRunner:
    model = tiny("llama").copy()
    model.module.float()
    return TorchRunner(model)


def test_accuracy_and_perplexity_are_those_of_a_naive_computation(fp32: TorchRunner) -> None:
    task = modeling(artifacts([40] * 30), documents=20, tokens=32)
    score = task.evaluate(fp32)
    hits, losses = naive_scores(fp32.model, rows_scored(fp32.model, task))
    assert sum(hits) > 0
    assert score.examples == pytest.approx(hits)
    assert score.accuracy == pytest.approx(np.mean(hits))
    assert score.stderr == pytest.approx(np.std(hits, ddof=1) / math.sqrt(20))
    assert score.extra == {"perplexity": pytest.approx(math.exp(np.mean(losses)), rel=1e-5)}


def test_inverse_perplexity_is_one_over_the_perplexity(fp32: TorchRunner) -> None:
    task = modeling(artifacts([40] * 9), metric="inverse_perplexity")
    score = task.evaluate(fp32)
    _, losses = naive_scores(fp32.model, rows_scored(fp32.model, task))
    assert 0 < score.accuracy < 1
    assert score.accuracy == pytest.approx(math.exp(-np.mean(losses)), rel=1e-5)
    assert score.accuracy * score.extra["perplexity"] == pytest.approx(1)
    assert score.examples == pytest.approx(losses, rel=1e-5)
    assert score.stderr == pytest.approx(score.accuracy * np.std(losses, ddof=1) / math.sqrt(5), rel=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_score_does_not_depend_on_how_rows_are_batched(fp32: TorchRunner, rows: int) -> None:
    one = modeling(artifacts([40] * 9), batch_rows=rows).evaluate(fp32)
    other = modeling(artifacts([40] * 9), batch_rows=2).evaluate(fp32)
    assert one.examples == pytest.approx(other.examples)
    assert one.extra["perplexity"] == pytest.approx(other.extra["perplexity"], rel=1e-5)


@pytest.mark.parametrize("count", [0, 4, 7])
def test_too_few_documents_are_told(tiny: Tiny, count: int) -> None:
    words = r"^task\.documents: the corpus has too few documents of 12 tokens for 3 calibration \+ 5 scored ones$"
    task = modeling(artifacts([20] * count + [11] * 9))
    with pytest.raises(ModelError, match=words):
        task.evaluate(TorchRunner(tiny("llama")))
    with pytest.raises(ModelError, match=words):
        task.calibration(tiny("llama"))


def test_a_model_that_went_mad_has_no_finite_perplexity(fp32: TorchRunner) -> None:
    fp32.module.model.norm.weight.fill_(float("nan"))
    assert not math.isfinite(modeling(artifacts([40] * 9)).evaluate(fp32).extra["perplexity"])


def test_a_hopeless_model_has_a_perplexity_that_is_still_a_number(fp32: TorchRunner) -> None:
    fp32.module.model.norm.weight.mul_(1e5)
    assert 1e100 < modeling(artifacts([40] * 9)).evaluate(fp32).extra["perplexity"] < math.inf


def test_the_micro_model_is_scored_on_text_it_was_not_trained_on(micro_folder: Path) -> None:
    import yaml

    from objectives.tasks.corpora import PythonTopics

    fields = yaml.safe_load((CONF / "task" / "python_topics.yaml").read_text())
    corpus = PythonTopics(split=fields.pop("corpus")["split"])
    fields.pop("_target_")
    score = LanguageModeling(corpus=corpus, **fields).evaluate(
        TorchRunner(Checkpoint(path=str(micro_folder), head="causal_lm").load())
    )
    assert len(score.examples) == 8
    assert 0.25 < score.accuracy < 0.6
    assert 0 < score.stderr < 0.05
    assert 8 < score.extra["perplexity"] < 30


@pytest.mark.parametrize(("values", "error"), [([0.3], 0.0), ([0.0, 1.0], 0.5), ([1.0, 1.0, 1.0], 0.0)])
def test_the_standard_error_is_that_of_a_mean(values: list[float], error: float) -> None:
    assert standard_error(values) == pytest.approx(error)


# ---- retrieval


@pytest.fixture
def encoder(tiny: Tiny) -> TorchRunner:
    model = tiny("bert").copy()
    model.module.float()
    return TorchRunner(model)


def retrieval(corpus: ArtifactStore, **settings: Any) -> Retrieval:
    return Retrieval(corpus=corpus, **{"pool": 30, "tokens": 24, "calibration_pairs": 4, "batch_rows": 5, **settings})


def test_an_embedding_is_the_normalised_mean_of_the_last_states(encoder: TorchRunner) -> None:
    ids = torch.tensor([encoder.tokenizer("hello").input_ids])
    mean = encoder.module(input_ids=ids).last_hidden_state[0].mean(dim=0)
    torch.testing.assert_close(embed(encoder, ["hello"], 24)[0], mean / mean.norm())


def test_a_search_tells_of_the_texts_that_it_embeds(encoder: TorchRunner, heard: list[Any]) -> None:
    task = retrieval(artifacts([40] * 20, summaries=True))
    with followed():
        task.evaluate(encoder)
    done = [far.done for far in heard if far is not None and far.total]
    assert done == sorted(done)
    assert len(set(done)) > 5
    assert (heard[-2].done, heard[-2].total) == (36, 36)  # 20 that can be found, 16 that are asked


def test_padding_does_not_change_an_embedding(encoder: TorchRunner) -> None:
    texts = ["a", "some words", "some more words, longer"]
    together = embed(encoder, texts, 24)
    alone = torch.cat([embed(encoder, [text], 24) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_texts_are_cut_at_the_tokens_asked(encoder: TorchRunner) -> None:
    torch.testing.assert_close(embed(encoder, ["abcdefgh"], 5), embed(encoder, ["abcde"], 24))


def test_a_model_that_embeds_equal_texts_equally_finds_itself(encoder: TorchRunner) -> None:
    corpus = ArtifactStore(tuple(Document(str(i), text_of(i, 20), text_of(i, 20)) for i in range(30)))
    score = retrieval(corpus).evaluate(encoder)
    assert score.accuracy == 1.0
    assert score.examples == (1.0,) * 26


def test_a_summary_of_another_document_is_a_miss(encoder: TorchRunner) -> None:
    """The summaries of d10 and d11 are exchanged: both miss, all others hit."""
    swapped = {10: 11, 11: 10}
    corpus = ArtifactStore(tuple(Document(str(i), text_of(i, 20), text_of(swapped.get(i, i), 20)) for i in range(30)))
    score = retrieval(corpus).evaluate(encoder)
    assert [i + 4 for i, hit in enumerate(score.examples) if not hit] == [10, 11]
    assert score.accuracy == pytest.approx(24 / 26)
    assert score.stderr == pytest.approx(standard_error(list(score.examples)))


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_the_hits_do_not_depend_on_how_texts_are_batched(encoder: TorchRunner, rows: int) -> None:
    corpus = artifacts([6 + i % 17 for i in range(30)], summaries=True)
    assert retrieval(corpus, batch_rows=rows).evaluate(encoder).examples == retrieval(corpus).evaluate(encoder).examples


def test_documents_of_calibration_stay_in_the_pool(encoder: TorchRunner) -> None:
    """d5's summary is the text of d0, which calibrates: it must be found there, and so miss."""
    corpus = ArtifactStore(tuple(Document(str(i), text_of(i, 20), text_of(0 if i == 5 else i, 20)) for i in range(10)))
    assert retrieval(corpus).evaluate(encoder).examples == (1.0, 0.0, 1.0, 1.0, 1.0, 1.0)


def test_only_pairs_at_the_front_calibrate_without_padding(encoder: TorchRunner) -> None:
    corpus = artifacts([8, 30, 8, 40, 9, 9], summaries=True)
    rows = [row for batch in retrieval(corpus).calibration(encoder.model)["task"] for row in batch.tolist()]
    texts = [text for pair in corpus.held[:4] for text in (pair.text, pair.summary or "")]
    assert sorted(rows) == sorted(encoder.tokenizer(text[:24]).input_ids for text in texts)


def test_documents_without_a_summary_and_beyond_the_pool_are_left_out(encoder: TorchRunner) -> None:
    pairs = artifacts([8] * 9, summaries=True).held
    corpus = ArtifactStore((Document("x", "no summary"), *pairs[:3], Document("y", "empty", ""), *pairs[3:]))
    assert len(retrieval(corpus, pool=6).evaluate(encoder).examples) == 2


@pytest.mark.parametrize("count", [0, 3, 4])
def test_too_few_pairs_are_told(encoder: TorchRunner, count: int) -> None:
    with pytest.raises(ModelError, match=rf"^task\.calibration_pairs: the corpus has {count} documents with a summary"):
        retrieval(artifacts([8] * count, summaries=True)).evaluate(encoder)


@pytest.mark.parametrize("task", [LanguageModeling, Retrieval])
def test_a_corpus_has_documents(task: type) -> None:
    with pytest.raises(pydantic.ValidationError, match="corpus"):
        task(corpus="XSum")


def test_a_task_says_which_head_it_scores() -> None:
    assert modeling(ArtifactStore()).head == "causal_lm"
    assert retrieval(ArtifactStore()).head == "encoder"


def test_padding_is_told_to_the_model(encoder: TorchRunner) -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def encode(ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        assert mask is not None
        seen.append((list(ids.shape), mask.sum(dim=1).tolist()))
        return torch.ones(*ids.shape, 4)

    given = {"tokenizer": encoder.tokenizer, "encode": encode, "device": torch.device("cpu"), "vocabulary": 512}
    model: Any = SimpleNamespace(**given)
    embed(model, ["ab", "ab cd ef gh ij kl"], 16)
    [(shape, counts)] = seen
    assert shape[1] == counts[1] > counts[0]


# ---- names of the examples


def renamed(corpus: ArtifactStore, name: str) -> ArtifactStore:
    """All documents under one name."""
    return ArtifactStore(tuple(Document(name, document.text, document.summary) for document in corpus.held))


def test_a_scored_text_is_named_by_its_document_from_the_end_of_the_corpus(fp32: TorchRunner) -> None:
    score = modeling(artifacts([40] * 7 + [3, 40, 40]), metric="inverse_perplexity").evaluate(fp32)
    assert score.ids == ("d9", "d8", "d6", "d5", "d4")  # d7 is too short
    rows = fp32.tokenizer([text_of(i, 40)[:12] for i in (9, 8, 6, 5, 4)], return_tensors="pt")["input_ids"]
    assert score.examples == pytest.approx(naive_scores(fp32, rows)[1], rel=1e-5)


def test_a_query_is_named_by_its_pair(encoder: TorchRunner) -> None:
    pairs = artifacts([8] * 7, summaries=True).held
    corpus = ArtifactStore((*pairs[:5], Document("x", "no summary"), *pairs[5:]))
    assert retrieval(corpus).evaluate(encoder).ids == ("d4", "d5", "d6")


def test_examples_of_one_name_are_told_apart(fp32: TorchRunner, encoder: TorchRunner) -> None:
    texts = ArtifactStore((*artifacts([40] * 4).held, *renamed(artifacts([40] * 9), "same").held[4:]))
    pairs = renamed(artifacts([8] * 7, summaries=True), "same")
    assert modeling(texts).evaluate(fp32).ids == ("same", "same#2", "same#3", "same#4", "same#5")
    assert retrieval(pairs).evaluate(encoder).ids == ("same", "same#2", "same#3")


def test_a_number_that_is_another_name_already_is_not_given_twice() -> None:
    assert unique(["a", "a", "a#2", "b", "a"]) == ("a", "a#2", "a#2#2", "b", "a#3")


@pytest.mark.parametrize("metric", ["next_token_accuracy", "inverse_perplexity"])
def test_names_are_the_same_at_every_call_and_for_every_model(tiny: Tiny, fp32: TorchRunner, metric: str) -> None:
    task = modeling(artifacts([40] * 9), metric=metric)
    names = task.evaluate(fp32).ids
    assert names == task.evaluate(fp32).ids == task.evaluate(TorchRunner(tiny("opt"))).ids
    assert len(set(names)) == len(task.evaluate(fp32).examples)


def served(**settings: Any) -> dict[str, LanguageModeling]:
    """Two domains of unlike size, whose corpora use the same names."""
    settings = {"metric": "inverse_perplexity", **settings}
    return {
        "short": modeling(artifacts([100] * 9), documents=2, **settings),
        "long": modeling(artifacts([100] * 9), documents=4, **settings),
    }


def test_domains_are_counted_and_their_examples_are_parts_of_them(fp32: TorchRunner, heard: list[Any]) -> None:
    with followed():
        Domains(served=served(), unseen={"other": modeling(artifacts([40] * 9))}).evaluate(fp32)
    told = [far for far in heard if far is not None and far.total]
    assert {(far.total, far.domains) for far in told} == {(3, True)}
    assert list(dict.fromkeys(far.done for far in told)) == pytest.approx([0, 1, 1.5, 2, 2.4, 2.8, 3])


def test_a_domain_stands_before_the_names_of_its_examples(fp32: TorchRunner) -> None:
    task = Domains(served=served(), unseen={"other": modeling(artifacts([40] * 9))})
    score = task.evaluate(fp32)
    assert score.ids == ("short:d8", "short:d7", "long:d8", "long:d7", "long:d6", "long:d5")
    assert score.ids == task.evaluate(fp32).ids
    assert score.examples == tuple(hit for part in served().values() for hit in part.evaluate(fp32).examples)
    assert score.strata == (2, 4)


@dataclass(frozen=True)
class Told:
    """A task whose examples are known."""

    examples: tuple[float, ...]
    link: Literal["mean", "exp_minus_mean"] = "mean"
    head: Literal["causal_lm"] = "causal_lm"

    def calibration(self, _model: LoadedModel) -> dict[str, list[Tensor]]:
        return {}

    def evaluate(self, _model: TorchRunner) -> Score:
        mean = float(np.mean(self.examples))
        return Score(mean if self.link == "mean" else math.exp(-mean), 0.1, self.examples, link=self.link)


@pytest.mark.parametrize("link", ["mean", "exp_minus_mean"])
def test_the_accuracy_of_domains_is_the_mean_over_their_strata(fp32: TorchRunner, link: Any) -> None:
    one, other = Told((0.2, 0.4), link), Told((0.5, 0.9, 0.9, 0.9), link)
    flat = Domains(served={"one": one, "other": other})
    for task in (flat, Domains(served={"a": flat}), Domains(served={"a": flat, "b": flat})):
        score = task.evaluate(fp32)
        means = [np.mean(part) for part in np.split(np.array(score.examples), np.cumsum(score.strata)[:-1])]
        assert score.accuracy == pytest.approx(np.mean(means if link == "mean" else np.exp(-np.array(means))))
        assert score.link == link


@dataclass(frozen=True)
class Resampled(Told):
    """A task whose accuracy is that of the largest example, with so many replicates."""

    replicates: int = 0

    def evaluate(self, _model: TorchRunner) -> Score:
        def largest(places: Any) -> float:
            return float(np.array(self.examples)[places].max())

        found = replicates_by(largest, len(self.examples), self.replicates) if self.replicates else ()
        return Score(max(self.examples), 0.0, self.examples, replicates=found)


def test_replicates_of_domains_are_averaged_where_all_have_as_many(fp32: TorchRunner) -> None:
    one, other = Resampled((0.2, 0.4, 0.3), replicates=100), Resampled((0.5, 0.9), replicates=100)
    score = scored(one, Domains(served={"one": one, "other": other}).evaluate(fp32))
    parts = [task.evaluate(fp32) for task in (one, other)]
    assert score.accuracy == pytest.approx(0.65)
    assert score.replicates == pytest.approx(np.mean([part.replicates for part in parts], axis=0))
    assert score.stderr == pytest.approx(np.std(score.replicates, ddof=1))
    for lacking in (Resampled((0.5, 0.9)), Resampled((0.5, 0.9), replicates=200), Told((0.5, 0.9))):
        assert Domains(served={"one": one, "other": lacking}).evaluate(fp32).replicates == ()
        assert Domains(served={"one": one}, unseen={"other": lacking}).evaluate(fp32).replicates == parts[0].replicates


def test_domains_within_domains_bring_their_own_strata(fp32: TorchRunner) -> None:
    score = Domains(served={"a": Domains(served=served()), "b": Domains(served=served())}).evaluate(fp32)
    assert score.strata == (2, 4, 2, 4)
    assert score.ids[:3] == ("a:short:d8", "a:short:d7", "a:long:d8")
    assert len(set(score.ids)) == 12


def test_nested_domains_that_would_weigh_differently_are_refused(fp32: TorchRunner) -> None:
    task = Domains(served={"a": Domains(served=served()), "b": served()["long"]})
    with pytest.raises(ModelError, match=r"^task\.served: .* weights would differ: \{'a': 2, 'b': 1\}$"):
        task.evaluate(fp32)


def test_domains_of_unlike_metrics_are_refused(fp32: TorchRunner) -> None:
    tasks = {"a": modeling(artifacts([40] * 9)), "b": modeling(artifacts([40] * 9), metric="inverse_perplexity")}
    words = r"^task\.served: .* in different ways: \{'a': 'mean', 'b': 'exp_minus_mean'\}$"
    with pytest.raises(ModelError, match=words):
        Domains(served=tasks).evaluate(fp32)
    unlike = Domains(served={"a": tasks["a"]}, unseen={"b": tasks["b"]}).evaluate(fp32)
    assert unlike.link == "mean"


def test_examples_without_a_name_are_numbered(fp32: TorchRunner) -> None:
    score = Domains(served={"a": Told((0.2, 0.4)), "b": Told((0.5,))}).evaluate(fp32)
    assert score.ids == ("a:0", "a:1", "b:0")


def test_domains_whose_names_run_together_still_name_every_example_once(fp32: TorchRunner) -> None:
    nested = Domains(served={"b": Told((0.2,))})
    assert Domains(served={"a": nested, "a:b": Told((0.4,))}).evaluate(fp32).ids == ("a:b:0", "a:b:0#2")
