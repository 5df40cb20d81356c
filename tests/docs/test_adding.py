"""The pages of ``docs/adding``: their files and commands, run as they stand over the small model of ``tests/stored``.

One folder for all pages, as a reader has it, and one process: only engines are opened in others.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from search.cli import main

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "adding"
STORED = ROOT / "tests" / "stored"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"^# file: (\S+)$", re.MULTILINE)
LONGEST = 120


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page."""
    return [text for kind, text in FENCED.findall((PAGES / page).read_text(encoding="utf-8")) if kind == language]


def commands(page: str) -> list[list[str]]:
    """Return the arguments of every command of a page."""
    lines = [line for text in blocks(page, "console") for line in text.splitlines()]
    assert all(line.startswith("$ paretune ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


def names(page: str) -> list[str]:
    """Return the files that a page shows."""
    return [
        found.group(1) for kind in ("python", "yaml") for text in blocks(page, kind) if (found := NAMED.search(text))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The reader's folder: the model, the texts and every file of the pages; no module stays imported."""
    made = tmp_path_factory.mktemp("adding")
    shutil.copytree(STORED / "model", made / "model")
    shutil.copy(STORED / "texts.jsonl", made)
    for page in PAGES.glob("*.md"):
        for text in (*blocks(page.name, "python"), *blocks(page.name, "yaml")):
            found = NAMED.search(text)
            assert found is not None, f"{page.name}: a block names no file"
            assert found.start() <= text.index("\n") + 1, (
                f"{page.name}: {found.group(1)} is not named in the first lines"
            )
            file = made / found.group(1)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.syspath_prepend(str(made))
        patch.setattr("sys.argv", ["paretune"])
        patch.setenv("COLUMNS", "200")
        yield made
    for name in set(sys.modules) - before:
        if (made / f"{name}.py").is_file():
            del sys.modules[name]


class Study:
    """What a command wrote."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        reports = folder / "mlruns" / "reports"
        known = set(reports.iterdir()) if reports.is_dir() else set()
        assert main(words) == 0
        (self.report,) = set(reports.iterdir()) - known
        self.trials = pd.read_csv(self.report / "trials.csv").set_index("trial")
        self.cells = pd.read_csv(self.report / "cells.csv")

    @property
    def baseline(self) -> Any:
        """Its row among the trials."""
        return self.trials.loc[0]


@pytest.fixture(scope="module")
def pruner(folder: Path) -> Study:
    return Study(folder, commands("pruner.md")[0])


@pytest.fixture(scope="module")
def quantizer(folder: Path) -> Study:
    return Study(folder, commands("quantizer.md")[0])


@pytest.fixture(scope="module")
def task(folder: Path) -> Study:
    return Study(folder, commands("task.md")[0])


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Study:
    return Study(folder, commands("runtime.md")[0])


@pytest.fixture(scope="module")
def metrics(folder: Path) -> list[Study]:
    return [Study(folder, words) for words in commands("metric.md")]


@pytest.mark.parametrize("page", ["README.md", "pruner.md", "quantizer.md", "task.md", "metric.md", "runtime.md"])
def test_a_page_is_short_and_shows_its_files(page: str) -> None:
    assert len((PAGES / page).read_text(encoding="utf-8").splitlines()) <= LONGEST
    assert len(names(page)) == (1 if page in ("README.md", "metric.md") else 2)
    linked = re.findall(r"\]\(([^)#]+)\)", (PAGES / page).read_text(encoding="utf-8"))
    assert all((PAGES / link).is_file() for link in linked)


# ---- the pruner


def test_the_baseline_is_unpruned_though_the_yaml_and_the_axis_say_otherwise(pruner: Study) -> None:
    assert pruner.baseline.is_baseline
    assert (pruner.baseline.pruning_sparsity, pruner.baseline.pruning_ratio) == (0.0, 0.0)
    assert (pruner.trials.pruning_ratio[1:] > 0).all()


def test_a_pruned_model_is_smaller(pruner: Study) -> None:
    tried = pruner.trials.sort_values("pruning_sparsity")
    assert len(tried) >= 3
    assert tried.weight_bytes.is_monotonic_decreasing
    assert tried.weight_bytes.is_unique


def test_what_is_harder_than_a_recipe_that_misses_the_floor_is_closed_untried(pruner: Study) -> None:
    closed = pruner.cells[pruner.cells["pruning.sparsity"] == 0.9].iloc[0]
    assert (closed.status, closed.trial) == ("assumed infeasible", 1)
    assert "a milder recipe misses the floor" in closed.why
    assert pruner.trials.loc[1].pruning_sparsity == 0.8
    assert not pruner.trials.loc[1].feasible


def test_fake_models_are_narrowed_as_real_ones(pruner: Study, folder: Path) -> None:
    from sparsity import NarrowFfn

    from objectives.models import Checkpoint

    model, other = Checkpoint(path="model", head="causal_lm").load(), Checkpoint(path="model", head="causal_lm").load()
    NarrowFfn(sparsity=0.3).resize_fake_(model, None)
    width = model.module.model.layers[0].mlp.down_proj.in_features
    assert width == 112
    NarrowFfn().prune_(other, None)
    assert other.module.model.layers[0].mlp.down_proj.in_features == 160


# ---- the quantiser


def test_fewer_bits_are_fewer_bytes(quantizer: Study) -> None:
    by_bits = quantizer.trials.set_index("bits").sort_index()
    assert list(by_bits.index) == [4, 8, 16]
    assert by_bits.weight_bytes.is_monotonic_increasing
    assert by_bits.weight_bytes.is_unique
    assert quantizer.baseline.bits == 16
    assert by_bits.predicted_loss[4] > by_bits.predicted_loss[8] > by_bits.predicted_loss[16] == 0


def test_scales_are_powers_of_two_and_errors_are_smaller_than_with_half_or_twice_the_scale(quantizer: Study) -> None:
    import torch
    from power_of_two import PowerOfTwo

    from objectives.calibration.moments import Moment

    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    weight[0] = 0.0
    second = torch.eye(64)
    fields = {"second": second, "mean": torch.zeros(64), "share": 1.0}
    moment = Moment(**{name: fields[name] for name in Moment.__dataclass_fields__ if name in fields})
    codes = PowerOfTwo(bits=4).round(weight, moment, 4, 32)
    assert torch.equal(codes.scale, torch.exp2(torch.log2(codes.scale).round()))
    assert codes.values.min() >= 0
    assert codes.values.max() <= 15
    assert (codes.dequantize() - weight).abs().max() < weight.abs().max() / 2
    assert codes.dequantize()[0].abs().max() == 0


# ---- the task


def naive_chrf(said: list[str], wanted: list[str]) -> float:
    """ChrF2 of a corpus by another way: n-grams as slices, matched off one by one."""
    precisions, recalls = [], []
    for n in range(1, 7):
        matched = written = given = 0
        for one, other in zip(said, wanted):
            own, left = one.replace(" ", ""), other.replace(" ", "")
            grams = Counter(left[i : i + n] for i in range(len(left) - n + 1))
            given += sum(grams.values())
            for i in range(len(own) - n + 1):
                written += 1
                if grams[own[i : i + n]]:
                    grams[own[i : i + n]] -= 1
                    matched += 1
        precisions.append(matched / max(written, 1))
        recalls.append(matched / max(given, 1))
    precision, recall = sum(precisions) / 6, sum(recalls) / 6
    return 5 * precision * recall / (4 * precision + recall) if precision or recall else 0.0


def test_the_metric_is_that_of_the_corpus_computed_otherwise(task: Study, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained("model")
    texts = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text().splitlines()]
    rows = torch.tensor([tokenizer(text)["input_ids"][:64] for text in texts][8:])
    written = model.generate(rows[:, :32], max_new_tokens=32, min_new_tokens=32, do_sample=False)[:, 32:]
    wanted = tokenizer.batch_decode(rows[:, 32:])
    assert task.baseline.accuracy == pytest.approx(naive_chrf(tokenizer.batch_decode(written), wanted), abs=1e-9)
    assert task.baseline.examples == len(rows) == 16
    assert (task.trials.examples == 16).all()  # in full, each of them


TEXTS = [("it rains today", "it rained today"), ("no", "yes"), ("a long way home", "a long way to go"), ("so", "so it")]


def test_replicates_are_the_metric_of_resampled_texts_and_give_the_difference(task: Study) -> None:
    from continuation import corpus_score, ngram_counts

    from objectives.tasks.paired import paired_difference
    from objectives.tasks.resampling import replicates_by

    said, wanted = zip(*TEXTS)
    other = ["it rained today", "yes", "a short way home", "and"]
    scores = [
        corpus_score(np.stack([ngram_counts(*each) for each in zip(texts, wanted)]), tuple("abcd"))
        for texts in (said, other)
    ]
    assert scores[0].accuracy == pytest.approx(naive_chrf(list(said), list(wanted)))
    assert scores[0].examples == pytest.approx([naive_chrf([one], [two]) for one, two in TEXTS])
    naive = replicates_by(lambda drawn: naive_chrf([said[at] for at in drawn], [wanted[at] for at in drawn]), 4, 100)
    assert scores[0].replicates[:100] == pytest.approx(naive)
    found = paired_difference(*scores)
    assert found is not None
    assert found.value == pytest.approx(scores[0].accuracy - scores[1].accuracy)
    assert found.low < found.value < found.high


def test_a_study_of_a_metric_of_the_corpus_says_how_sure_it_is_and_is_cut_again_at_any_floor(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {"space.quantization.bits": "[16]", "executor": "in_process", "accuracy_floor.epsilon": "0.5"}
    words = [word for word in commands("task.md")[0] if word.split("=")[0] not in changed]
    words += [f"{key}={value}" for key, value in changed.items()]
    study = Study(folder, [*words, "pruning=magnitude", "space.pruning.ratio=[0.0,0.7]"])
    trials, pruned = study.trials, study.trials.iloc[-1]
    assert trials.accuracy.is_unique
    assert (trials.accuracy_replicates == 1000).all()
    assert pruned.accuracy_difference == pytest.approx(pruned.accuracy - study.baseline.accuracy)
    assert pruned.accuracy_difference_low < pruned.accuracy_difference < pruned.accuracy_difference_high
    assert 0 < pruned.accuracy_stderr < 0.1
    told = (study.report / "report.md").read_text(encoding="utf-8")
    assert "so it was always scored in full. Its standard error is 0." in told
    assert ", from 1000 resamples of the examples." in told
    for floor in (pruned.accuracy, np.nextafter(pruned.accuracy, 1.0)):  # by the accuracy alone, to the last digit
        cut = ["report", f"accuracy_floor.epsilon={float(floor)!r}", "accuracy_floor.relative=false", "folder=cut"]
        assert main([*cut, f"study={study.report.name}"]) == 0
        feasible = json.loads(Path("cut/pareto.json").read_text(encoding="utf-8"))["feasible"]
        assert feasible == trials.index[trials.accuracy >= floor].tolist()
    capsys.readouterr()
    assert main(["check", *words[1:]]) == 0
    assert "so it is always scored in full. Its standard error is 0." in capsys.readouterr().out


def test_calibration_rows_are_not_scored(task: Study, folder: Path) -> None:
    from continuation import Continuation, JsonLines

    from objectives.models import Checkpoint

    model = Checkpoint(path="model", head="causal_lm").load()
    made = Continuation(corpus=JsonLines(path="texts.jsonl"))
    names, rows = made._rows(model)
    (batch,) = made.calibration(model)["task"]
    assert (batch == rows[:8]).all()
    scored = set(map(tuple, rows[8:].tolist()))
    assert not scored & set(map(tuple, batch.tolist()))
    assert len(names) == len(rows) == 24


# ---- the metric


def test_a_function_scores_row_by_row_and_all_together(metrics: list[Study]) -> None:
    by_row, together = (study.baseline for study in metrics)
    assert 0.6 < by_row.accuracy < 0.9
    assert 0.5 < together.accuracy < by_row.accuracy
    assert together.accuracy_replicates == 1000
    assert 0.02 < together.accuracy_stderr < 0.2
    for study in metrics:
        assert study.trials.weight_bytes.loc[1] < study.trials.weight_bytes.loc[0]
        assert study.trials.feasible.loc[0]


def test_the_report_tells_how_a_metric_of_all_rows_is_scored(metrics: list[Study]) -> None:
    said = [(study.report / "report.md").read_text(encoding="utf-8") for study in metrics]
    assert ["a metric of all examples together" in text for text in said] == [False, True]


# ---- the runtime


@pytest.mark.slow
def test_an_axis_chooses_the_runtime_and_its_trial_is_complete(runtime: Study) -> None:
    trial = runtime.trials.loc[1]
    assert (trial.runtime, trial.bits, trial.state) == ("program", 32, "complete")
    assert trial.peak_memory > trial.weight_bytes > 0  # weighed in a process of its own
    assert runtime.baseline.runtime == "torch"
    refused = runtime.cells[(runtime.cells.runtime == "program") & (runtime.cells["quantization.bits"] == 16)].iloc[0]
    assert (refused.status, refused.why) == ("unsupported", "program: decoders in 32 bits, not 16")


@pytest.mark.slow
def test_its_answers_are_those_of_torch(runtime: Study) -> None:
    assert runtime.trials.loc[1].accuracy == pytest.approx(runtime.baseline.accuracy, rel=1e-3)


@pytest.mark.slow
def test_its_winner_is_written_and_loads_where_its_module_is_admitted(
    runtime: Study, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    import objectives
    from objectives.errors import ModelError

    assert main(commands("runtime.md")[1]) == 0
    assert "objectives.load('winner', allow_targets=['program'])" in capsys.readouterr().out
    with pytest.raises(ModelError, match="allow_targets"):
        objectives.load("winner")
    served = objectives.load("winner", allow_targets=["program"])
    model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32)
    for ids in (torch.tensor([[7]]), torch.arange(4, 28).view(3, 8)):
        with torch.inference_mode():
            wanted = model(ids).logits
        torch.testing.assert_close(served.logits(ids), wanted, atol=1e-4, rtol=1e-3)


def test_without_an_axis_all_candidates_but_the_baseline_run_in_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in commands("runtime.md")[0][1:] if "runtime" not in word]
    assert main(["plan", *words, "runtime=program"]) == 0
    shown = capsys.readouterr().out
    assert "program" in shown
    assert "onnxruntime" not in shown
