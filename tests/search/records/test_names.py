"""Values that a shell, Hydra's grammar or a file system treats specially, and the names that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from search.cli import main
from search.config.overrides import expanded, fixed_keys, literal, parsed, readable
from search.config.study_config import StudyConfig, build_config
from search.errors import ConfigError, StudyConflict
from search.records.names import LONGEST, bounded, name_of
from search.space.grid import Grid
from search.space.space import same
from search.study.study import run_study
from tests.search.conftest import Quiet, composed
from tests.search.fresh_process import Answer, answers_of

TEXTS = [
    "./lr=0.1", "./ckpt#2", "./ckpt (v2)", "./a:b", "./a=b=c", "./it's", './say "so"', "./größe", "中文/模型", "./a&b",
    "./a;b",
    "./a<b>c", "./a!b", "./a^b", "./a`b`", "./a{b}", "./a[b]", "./back\\slash#", "./ends#\\", "./new\nline",
    "./t\tab", "./100%",
    "./me@host", "./a$b", "./\x1b[31m", "./a'b\"c", "ckpt(v2)", "./emoji🙂", "./a|b", "./**", "./a,b#", "./${#",
    "./a~b",
]  # fmt: skip


def read(word: str, *options: str) -> Any:
    found = parsed(readable([*options, word])[0])
    assert found is not None
    value = found.value()
    return OmegaConf.create({"x": value}).x if "${" in word else value


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_reaches_the_configuration_as_it_was_typed(text: str) -> None:
    assert str(read(f"model.path={text}")) == text


@pytest.mark.parametrize("text", [text for text in TEXTS if "," not in text])
def test_it_does_so_in_a_multirun_too(text: str) -> None:
    assert str(read(f"model.path={text}", "-m")) == text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("n_trials=3", 3), ("x=0.5", 0.5), ("x=1e-3", 1e-3), ("x=true", True), ("x=null", None), ("x=", ""),
        ("x=[0,0.5]", [0, 0.5]),
        ("x={a:1}", {"a": 1}), ("x='quoted, text'", "quoted, text"), ("++model.path=./a#b", "./a#b"),
        ("+first=[{a.b:1}]", [{"a.b": 1}]),
    ],
)  # fmt: skip
def test_what_hydra_reads_keeps_its_meaning(word: str, value: Any) -> None:
    found = read(word)
    assert (found.text if hasattr(found, "text") else found) == value


@pytest.mark.parametrize(
    "word", ["x=[0,0.5", "x={a:1", "x='open", "x=choice(1,", "x=range(0,#)", "foo", "a b=1", "x=[./a#b]", "ä=1"]
)
def test_what_nobody_can_read_is_refused_in_a_line_that_says_how_texts_are_written(word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        readable([word])
    message = str(refused.value)
    assert word.partition("=")[0] in message
    assert "\n" not in message
    assert "Exception" not in message


def test_a_tilde_is_expanded_where_a_value_begins_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read("model.path=~/model") == "/home/me/model"
    assert read("home=~") == "/home/me"
    assert read("home=~/a b (c)") == "/home/me/a b (c)"
    assert expanded("a~b") == "a~b"
    assert expanded("~nobody-of-that-name/x") == "~nobody-of-that-name/x"
    assert readable(["~model.path"]) == ["~model.path"]


def test_in_a_multirun_a_comma_separates_values_each_read_by_itself() -> None:
    found = parsed(readable(["-m", "model.path=./a#1,./b=2,./c"])[0])
    assert found is not None
    assert list(found.sweep_string_iterator()) == ["'./a#1'", "'./b=2'", "./c"]
    plain = parsed(readable(["-m", "accuracy_floor.epsilon=0.9,0.5"])[0])
    assert plain is not None
    assert plain.is_sweep_override()


def test_a_path_with_a_comma_that_is_there_is_one_value(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert str(read(f"model.path={tmp_path}/a,b", "-m")) == f"{tmp_path}/a,b"


def test_words_that_belong_to_options_are_left_alone() -> None:
    words = ["--config-dir", "./a#b=c", "n_trials=3", "--cfg", "job", "-m"]
    assert readable(words) == ["n_trials=3", "--config-dir", "./a#b=c", "--cfg", "job", "-m"]


@pytest.mark.parametrize("text", ["${x}", "a\\${x}", "$", "a${b}", "\\\\${a}b${c}"])
def test_a_literal_is_no_reference(text: str) -> None:
    assert OmegaConf.to_container(OmegaConf.create(literal({"x": [text]})), resolve=True) == {"x": [text]}


# ---- names of jobs


def test_only_keys_with_one_value_for_all_jobs_are_fixed() -> None:
    words = ["-m", "a.b=1", "c=1,2", "+d=choice(1,2)", "e=[1,2]", "f='1,2'", "model=micro,minilm_l6", "seed=range(0,3)"]
    assert fixed_keys(words) == {"a.b", "e", "f"}


SWEEP = """
from search.commands import run
run.run_job = lambda resolved, swept: print("JOB", repr(swept), resolved["model"]["path"]) or 0
main = run.main
"""
SWEPT: list[tuple[list[str], list[str]]] = [
    (["accuracy_floor.epsilon=0.9,0.5", "n_trials=2", *("timing.patience=0.1",) * 9],
     ["accuracy_floor.epsilon=0.9", "accuracy_floor.epsilon=0.5"]),
    (["+task.name=./a#1,./b"], ["task.name=_._a_1-", "task.name=._b-"]),
    (["--config-dir", "conf", "experiment=swept"], ["seed=1", "seed=2"]),
    ([], [""]),
]  # fmt: skip


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "conf" / "experiment").mkdir(parents=True)
    params = "hydra: {sweeper: {params: {seed: '1,2', n_trials: 3}}}"
    (folder / "conf" / "experiment" / "swept.yaml").write_text(f"# @package _global_\n{params}\n", encoding="utf-8")
    commands = [(folder, ["-m", "model=causal_lm", "model.path=./x", *words]) for words, _ in SWEPT]
    return answers_of(SWEEP, commands)


@pytest.mark.parametrize("case", range(len(SWEPT)))
def test_a_job_of_a_sweep_is_named_after_what_is_swept(case: int, sweeps: list[Answer]) -> None:
    names, done = SWEPT[case][1], sweeps[case]
    found = [line.split("'")[1] for line in done.out.splitlines() if line.startswith("JOB")]
    assert [name.startswith(wanted) for name, wanted in zip(found, names, strict=True)] == [True] * len(names), done
    assert len(set(found)) == len(names)
    assert "" not in found or found == [""]


@pytest.mark.parametrize("texts", [["epsilon=0.9"], ["a=1", "b=x-y.z_0"]])
def test_a_short_name_of_plain_characters_stays_readable(texts: list[str]) -> None:
    assert name_of(texts) == ",".join(texts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["m=a/b"], ["m=a_b"]), (["m=a/b"], ["m=a:b"]), (["x=[16]"], ["x={16}"]), (["p=_a"], ["p=/a"]), (["k=a b"],
        ["k=a\tb"]),
        (["k=" + "a" * 300 + "1"], ["k=" + "a" * 300 + "2"]), (["k=" + "中" * 90 + "1"], ["k=" + "中" * 90 + "2"]),
        (["k=?"], ["k=!"]),
        (["a=b"], ["a=b/"]),
    ],
)  # fmt: skip
def test_names_of_different_settings_differ_and_are_bounded(one: list[str], other: list[str]) -> None:
    first, second = name_of(one), name_of(other)
    assert first != second
    for name in (first, second):
        assert len(name.encode()) <= LONGEST
        assert not set(name) & set("/:[]{} \t?!")


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 255, "中" * 255, "a" * 201])
def test_a_file_named_after_a_study_fits_into_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / f".{bounded(name)}-recut.lock.12345678").touch()
    assert bounded(name) != bounded(name[:-1] + "x")
    assert bounded("short") == "short"


# ---- values that differ by rounding


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (0.3, 0.1 + 0.2, True), (8, 8.0, True), (1e0, 1, True), (0.0, -0.0, True), (1e-3, 0.001, True),
        (0.3, 0.3001, False), (True, 1, False), (False, 0.0, False), (True, True, True), ("8", 8, False),
        ("a", "a", True), (None, None, True), (None, 0, False),
    ],
)  # fmt: skip
def test_values_that_differ_by_rounding_are_one(one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is same(other, one) is alike


def test_an_axis_refuses_them_as_two() -> None:
    with pytest.raises(ConfigError, match=r"space\.pruning\.ratio: .*rounding, got 0\.3 and 0\.30000000000000004"):
        build_config(composed("experiment=ci_tiny", "space.pruning.ratio=[0,0.3,0.30000000000000004]"))


def test_a_cell_is_found_as_it_was_computed() -> None:
    first = "first=[{pruning.ratio: 0.30000000000000004, workload.batch_size: 4.0}]"
    config = build_config(composed("experiment=ci_tiny", "space.pruning.ratio=[0.0,0.3]", first))
    (cell,) = config.first
    assert cell["pruning.ratio"] == 0.3
    assert isinstance(cell["workload.batch_size"], int)
    computed = {**cell, "pruning.ratio": 0.1 + 0.2}
    assert computed in config.space
    assert Grid.of(config.space).index(computed) == Grid.of(config.space).index(cell)
    assert config.space.sampled(computed) == config.space.sampled(cell)


def test_a_stored_study_goes_on_where_a_value_was_rounded(make_config: Callable[..., StudyConfig]) -> None:
    run_study(make_config("study_name=s", "n_trials=2", "space.pruning.ratio=[0.0,0.3]"), Quiet())
    again = make_config("study_name=s", "n_trials=4", "space.pruning.ratio=[0.0,0.30000000000000004]")
    assert len(run_study(again, Quiet()).records) == 4
    with pytest.raises(StudyConflict):
        run_study(make_config("study_name=s", "space.pruning.ratio=[0.0,0.31]"), Quiet())


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "experiment=ci_tiny", "home=~nobody-of-that-name/runs"),
        ("plan", "experiment=ci_tiny", "cache.folder=~nobody-of-that-name/cache"),
        ("report", "home=~nobody-of-that-name"),
        ("ui", "home=~nobody-of-that-name"),
        ("export", "folder=~nobody-of-that-name/x"),
        ("plan", "experiment=ci_tiny", "model=causal_lm", "model.path=~nobody-of-that-name/m"),
    ],
)
def test_a_home_of_a_user_who_does_not_exist_is_a_name(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
