"""Classes of one's own are held to what ours keep: unknown keys, missing members, equality, sending."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from objectives.devices.cpu import Cpu
from objectives.protocols.candidate import Model, Pruner, Quantizer, Recovery, Runtime
from objectives.protocols.corpus import Corpus
from objectives.protocols.optional import Detectable, Inspectable
from objectives.protocols.running import Device, Workload
from objectives.protocols.task import Task
from search.config.study_config import PROTOCOLS, build_config
from search.errors import ConfigError
from search.space.instantiate import build
from search.space.members import PARTS, require_equality, require_members, require_sendable
from search.study.preflight import preflighted
from tests.search.conftest import composed

ROOT = Path(__file__).parents[3]
HERE = (f"{__name__}.",)

KINDS = {**PARTS, **PROTOCOLS}


@dataclass(frozen=True)
class Scoring:
    head: str = "causal_lm"

    def calibration(self, model: Any) -> Any:
        return {}

    def evaluate(self, model: Any) -> Any:
        return None


@dataclass(frozen=True)
class Headless:
    def calibration(self, model: Any) -> Any:
        return {}

    def evaluate(self, model: Any) -> Any:
        return None


@dataclass(frozen=True)
class Idle(Scoring):
    evaluate: Any = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Deaf(Scoring):
    def evaluate(self) -> Any:  # type: ignore[override]
        return None


class Method(Headless):
    def head(self) -> str:
        return "causal_lm"


class Plain:
    ratio = 0.0

    def __init__(self, ratio: float = 0.0) -> None:
        self.ratio = ratio

    def prune_(self, model: Any, statistics: Any) -> None: ...
    def resize_fake_(self, model: Any, statistics: Any) -> None: ...
    def predict(self, statistics: Any) -> float:
        return 0.0


class Takes:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings


class Needs:
    def __init__(self, path: str, size: int = 1) -> None:
        self.path = path


class Fails:
    def __init__(self) -> None:
        raise RuntimeError("two\nlines")


@dataclass(frozen=True)
class Unsent(Scoring):
    work: Any = field(default_factory=lambda: lambda: None)


def refused(call: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def decorators(file: Path) -> Iterator[tuple[str, str]]:
    """Every class that pydantic makes a dataclass of, and the source of its decorator."""
    tree = ast.parse(file.read_text())
    imported = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = {a.asname or a.name for node in imported if node.module == "pydantic.dataclasses" for a in node.names}
    for node in ast.walk(tree):
        for each in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            text = ast.unparse(each)
            if text.partition("(")[0] in names or "pydantic.dataclasses.dataclass" in text:
                yield f"{file.stem}.{node.name}", text


def test_every_settings_class_of_ours_forbids_what_it_does_not_know() -> None:
    files = [file for package in ("objectives", "search") for file in (ROOT / package).rglob("*.py")]
    found = dict(each for file in files for each in decorators(file))
    assert "corpora.XSum" in found
    assert len(found) > 40
    assert [name for name, text in found.items() if not re.search("forbid|FORBID|_STRICT", text)] == []


YAMLS = sorted(file for file in (ROOT / "conf").glob("*/*.yaml") if "_target_" in file.read_text())


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_no_class_that_a_yaml_names_takes_an_unknown_key(file: Path) -> None:
    node = OmegaConf.to_container(OmegaConf.load(file))
    said = refused(lambda: build({"_target_": node["_target_"], "no_such_key": 1}, "key"))
    assert said.startswith("key.no_such_key: unknown key; ")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("objectives.tasks.corpora.XSum", "task.x: unknown key; XSum has no settings"),
        ("objectives.tasks.corpora.PythonTopics", "task.x: unknown key; known: split"),
        (f"{__name__}.Scoring", "task.x: unknown key; known: head"),
        (f"{__name__}.Needs", "task.x: unknown key; known: path, size"),
        ("optuna.samplers.TPESampler", "task.x: unknown key"),
    ],
)
def test_an_unknown_key_is_refused_by_every_class(target: str, words: str) -> None:
    node = {"_target_": target, "x": 1}
    assert words in refused(lambda: build(node, "task", (*HERE, "objectives.", "optuna.samplers.")))


def test_a_class_that_takes_any_key_gets_it_and_a_missing_one_is_named() -> None:
    assert build({"_target_": f"{__name__}.Takes", "x": 1}, "task", HERE).settings == {"x": 1}
    assert refused(lambda: build({"_target_": f"{__name__}.Needs"}, "task", HERE)) == "task.path: required, got nothing"


def test_what_construction_raises_is_one_line() -> None:
    said = refused(lambda: build({"_target_": f"{__name__}.Fails"}, "task", HERE))
    assert said == f"task: {__name__}.Fails: RuntimeError: two lines"
    assert "is no class" in refused(lambda: build({"_target_": f"{__name__}.HERE"}, "task", HERE))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Headless(), "it has no head (objectives/protocols/task.py: Task)"),
        (Idle(), "it has no evaluate(model)"),
        (Deaf(), "it has no evaluate(model)"),
        (Method(), "head as a method, which must be a property"),
        (object(), "it has no calibration; no evaluate; no head"),
    ],
)
def test_a_task_that_lacks_a_member_is_told_which(part: Any, words: str) -> None:
    assert words in refused(lambda: require_members(part, "task", "task", Task))
    require_members(Scoring(), "task", "task", Task)


@pytest.mark.parametrize("protocol", [Pruner, Recovery, Quantizer, Runtime, Model, Task, Workload, Device, Corpus])
def test_a_class_that_only_names_its_protocol_as_a_base_is_refused(protocol: type) -> None:
    stub = type("Stub", (protocol,), {})
    with pytest.raises(TypeError, match="Can't instantiate abstract class Stub"):
        stub()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_its_protocol_and_file(kind: str) -> None:
    said = refused(lambda: require_members(object(), kind, kind, KINDS[kind]))
    assert KINDS[kind].__name__ in said
    assert ".py: " in said


def test_parts_of_a_candidate_have_equality_and_can_be_sent() -> None:
    require_members(Plain(), "pruning", "pruning", Pruner)
    assert "frozen=True" in refused(lambda: require_equality(Plain(), "pruning"))
    assert "cannot be sent to the worker" in refused(lambda: require_sendable(Unsent(), "task"))
    assert {Pruner, Task} <= set(KINDS.values())


@pytest.mark.parametrize(
    ("key", "target", "words"),
    [
        ("task", "Headless", "task: .* it has no head"),
        ("task", "Fails", "RuntimeError: two lines"),
        ("pruning", "Plain", "no equality by its settings"),
        ("pruning", "Takes", "pruning: .* is no pruning: it has no predict"),
        ("executor", "Takes", "is no executor: it has no start"),
        ("tracker", "Takes", "is no tracker: it has no open"),
    ],
)
def test_a_configuration_with_a_faulty_class_is_refused(key: str, target: str, words: str) -> None:
    resolved = {**composed("experiment=ci_tiny", "allow_targets=[tests.]"), key: {"_target_": f"{__name__}.{target}"}}
    with pytest.raises(ConfigError, match=words):
        build_config(resolved)


def test_settings_of_runtimes_that_the_space_does_not_choose_are_checked_too() -> None:
    assert "runtimes.openvino.foo: unknown key" in refused(
        lambda: build_config(composed("experiment=ci_tiny", "+runtimes.openvino.foo=1"))
    )


@dataclass(frozen=True)
class Elsewhere:
    """A model that no file describes: what is needed, and nothing that only serves early answers."""

    path: str = "mine"
    head: str = "causal_lm"

    def folder(self) -> Path:
        raise NotImplementedError

    def load(self) -> Any:
        raise NotImplementedError

    def weights_hash(self) -> str:
        return "0"

    def content_hash(self) -> str:
        return "0"


class Chip:
    """A device that is the CPU, but for what is asked before torch is imported."""

    def __init__(self) -> None:
        self._cpu = Cpu()

    def __getattr__(self, name: str) -> Any:
        if name in ("absent", "total_memory") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__.get("_cpu") or Cpu(), name)


@pytest.mark.parametrize(("key", "target"), [("model", "Elsewhere"), ("device", "Chip")])
def test_a_class_without_what_only_serves_early_answers_is_taken(key: str, target: str) -> None:
    resolved = {**composed("experiment=ci_tiny", "allow_targets=[tests.]"), key: {"_target_": f"{__name__}.{target}"}}
    found = preflighted(build_config(resolved))
    assert not isinstance(getattr(found, key), (Inspectable, Detectable))
    assert found.space.outside == {}
