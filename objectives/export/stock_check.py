"""Asks stock engines about a folder, in a fresh process without anything of ours, and compares their answers.

An engine writes on from some texts, and says how likely each of its tokens was. The measured model says the same of the
same tokens. Both compute in few bits, so neither is exact: what is exact are the stored weights, multiplied in fp32. An
engine answers equally where it is about as far from that as the measured model is.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from objectives.export.engines import Loader
from objectives.models import LoadedModel
from objectives.packing.embedding import Int8Embedding
from objectives.protocols.running import Runner
from objectives.runtime.engines import probe_process
from objectives.runtime.engines.weights import matrices, owners

PROMPTS, TOKENS, NEW = 4, 24, 16
"""Number of texts, their tokens, and how many tokens are written after each."""
PATIENCE = 600.0
"""Seconds that an engine may take, which is mostly the time of loading."""
TIMES, NATS = 3.0, 0.03
"""An engine answers equally where it is at most so many times as far from exact arithmetic as the measured model is,
and so many nats per token."""


class Outcome(StrEnum):
    """The result of asking a stock engine."""

    EQUAL = "answers equally"
    OTHERWISE = "answers otherwise"
    SPLITS = "splits texts otherwise"
    REFUSED = "does not load it"
    ABSENT = "not tried here"


@dataclass(frozen=True)
class Seen:
    """The outcome of asking one stock engine.

    ``nats``: by how much its log-probabilities differ from those of exact arithmetic, in the mean; ``own``: by how much
    those of the measured model do; ``likeliest``: the share of its tokens that are the likeliest for that model too.
    ``said``: why it did not load, how its tokenizer differs, or what to install; ``exact``: the variables that it
    needed to answer equally, and ``loose``: the nats without them.
    """

    engine: str
    outcome: Outcome
    nats: float = 0.0
    own: float = 0.0
    likeliest: float = 0.0
    said: str = ""
    exact: str = ""
    loose: float = 0.0

    @property
    def line(self) -> str:
        """Return it as a line for people."""
        if self.outcome is Outcome.ABSENT:
            return f"not tried here: {self.engine}: {self.said}"
        if self.outcome is Outcome.REFUSED:
            return f"not loaded by {self.engine}: {self.said}"
        if self.outcome is Outcome.SPLITS:
            return f"loaded by {self.engine}, its tokenizer splits texts otherwise: {self.said}"
        how = "equal" if self.outcome is Outcome.EQUAL else "NOT equal"
        if self.exact:
            how += f" with {self.exact} (without it, {self.loose:.3f} nats off: it rounds inputs too)"
        return (
            f"loaded by {self.engine}, answers {how}: {self.nats:.3f} nats per token from exact arithmetic (the "
            f"measured model: {self.own:.3f}), {self.likeliest:.0%} of its tokens are the measured model's likeliest"
        )


def look(
    runner: Runner, model: LoadedModel, loader: Loader, opened: Path, prompts: Tensor, trusted: bool = False
) -> Seen:
    """Let a stock engine load what lies at ``opened`` and compare its answers with those of ``runner``.

    ``model``: the weights that ``runner`` has; ``prompts`` [rows, tokens]; ``trusted``: code in the folder may run.
    """
    python = loader.python()
    if python is None:
        return Seen(loader.engine, Outcome.ABSENT, said=loader.install)
    texts = [runner.tokenizer.decode(row, skip_special_tokens=True) for row in prompts]
    request = {
        "model": str(opened.resolve()), "prompts": prompts.tolist(), "texts": texts, "count": NEW, "trusted": trusted,
    }  # fmt: skip
    lengths = [len(runner.tokenizer(text).input_ids) for text in texts]

    def ask(variables: Mapping[str, str]) -> Seen:
        answer = _asked(python, loader, request, variables)
        if isinstance(answer, str):
            return Seen(loader.engine, Outcome.REFUSED, said=answer)
        seen = _compared(runner, model, prompts, answer)
        if answer["lengths"] != lengths:
            told = f"texts of {lengths} tokens have {answer['lengths']} there"
            seen = replace(seen, outcome=Outcome.SPLITS, said=told)
        return seen

    seen = ask({})
    if seen.outcome is Outcome.OTHERWISE and loader.exact:
        again = ask(loader.exact)
        if again.outcome is Outcome.EQUAL:
            needed = " ".join(f"{name}={value}" for name, value in loader.exact.items())
            return replace(again, exact=needed, loose=seen.nats)
    return seen


def _asked(python: Path, loader: Loader, request: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any] | str:
    """Return what the engine answers, or the last line of what it said where it failed; ``variables`` are set too."""
    with TemporaryDirectory() as place:
        asked, answered = Path(place) / "request.json", Path(place) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        process = subprocess.Popen(
            [str(python), "-I", str(loader.path), str(asked), str(answered)],
            cwd=place, env={**os.environ, "HF_MODULES_CACHE": place, **variables}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return f"still loading after {PATIENCE:.0f} s"
        finally:
            probe_process.end(process)
        if answered.is_file():
            answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
            return answer
        lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"it ended with code {process.returncode}"


def _compared(runner: Runner, model: LoadedModel, prompts: Tensor, answer: dict[str, Any]) -> Seen:
    reference, theirs, own, true, likeliest = exact(model), [], [], [], []
    for prompt, tokens, said in zip(prompts, answer["tokens"], answer["logprobs"], strict=True):
        if not tokens:  # llama.cpp tells texts, and one may end within a character
            continue
        chosen = torch.tensor(tokens, dtype=torch.int64)
        ids, first = torch.cat([prompt, chosen])[None, :-1], len(prompt) - 1
        with torch.inference_mode():
            measured = runner.logits(ids, first)[0, : len(tokens)].float().log_softmax(-1)
            wanted = reference(input_ids=ids).logits[0, first:].log_softmax(-1)
        theirs.append(torch.tensor(said))
        own.append(measured.gather(-1, chosen[:, None])[:, 0])
        true.append(wanted[: len(tokens)].gather(-1, chosen[:, None])[:, 0])
        likeliest.append((measured.argmax(-1) == chosen).float())
    if not true:
        return Seen(answer["engine"], Outcome.REFUSED, said="it wrote no token")
    truth = torch.cat(true)
    far, ours = (float((torch.cat(each) - truth).abs().mean()) for each in (theirs, own))
    outcome = Outcome.EQUAL if far <= TIMES * ours + NATS else Outcome.OTHERWISE
    return Seen(answer["engine"], outcome, far, ours, float(torch.cat(likeliest).mean()))


def exact(model: LoadedModel) -> Any:
    """Return the module of ``model`` with the weights that are stored, in fp32."""
    weights = {name: torch.from_numpy(each.dequantized()) for name, each in matrices(model)}
    module = copy.deepcopy(model.module)
    for name, owner in owners(model).items():
        part = module.get_submodule(name)
        if isinstance(part, Int8Embedding):
            table = weights[owner] * part.factor
            module.set_submodule(name, nn.Embedding(table.shape[0], table.shape[1], _weight=table))
        elif isinstance(part, nn.Embedding):
            part._forward_hooks.clear()  # by which a device narrows what it gives
        else:
            module.set_submodule(name, _linear(weights[owner], getattr(part, "bias", None)))
    return module.float().eval().requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def worst(seen: Sequence[Seen]) -> Seen | None:
    """Return an engine that answers otherwise; None where none does."""
    return next((each for each in seen if each.outcome in (Outcome.OTHERWISE, Outcome.SPLITS)), None)
